#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <nlohmann/json.hpp>

#include "agent/control.h"
#include "base/log.h"
#include "base/task_group.h"

namespace walvault::agent {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using ErrorCode = boost::system::error_code;
using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;

constexpr std::uint32_t kHeaderBytesMax = 8 << 10;
constexpr std::uint64_t kBodyBytesMax = 64 << 10;
constexpr std::size_t kConnectionsMax = 32;
// The rest is kept for the socket: a crowd on TCP cannot lock the commands out.
constexpr std::size_t kTcpConnectionsMax = 24;

struct State {
    State(asio::any_io_executor executor, HttpServer::Options given, HttpServer::Handler answer)
        : options(std::move(given)),
          handler(std::move(answer)),
          tcp(executor),
          local(executor),
          group(executor) {}
    HttpServer::Options options;
    HttpServer::Handler handler;
    Tcp::acceptor tcp;
    Local::acceptor local;
    TaskGroup group;
    std::list<std::function<void()>> closers;  // one for each open connection
    bool stopping = false;
};

// "localhost:9858", "127.0.0.1", "[::1]:9858".
bool names_loopback(std::string_view host) {
    std::size_t bracket = host.rfind(']');
    std::size_t colon = host.rfind(':');
    if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
        std::string_view port = host.substr(colon + 1);
        if (port.find_first_not_of("0123456789") != std::string_view::npos) return false;
        host = host.substr(0, colon);
    }
    return host == "localhost" || host == "127.0.0.1" || host == "[::1]";
}

HttpResponse refusal(unsigned status, std::string message, std::string hint = {}) {
    return http_error(status, Error{Errc::refused, std::move(message), std::move(hint)});
}

// What is wrong with the request before anyone looks at its path.
std::optional<HttpResponse> refuse(const http::request<http::string_body>& request,
                                   bool from_socket) {
    bool get = request.method() == http::verb::get;
    bool change = request.method() == http::verb::post || request.method() == http::verb::delete_;
    if (!from_socket &&
        (request.count(http::field::host) != 1 || !names_loopback(request[http::field::host])))
        return refusal(421, "the Host header does not name this machine's loopback",
                       "ask for http://127.0.0.1");
    if (!get && !(change && from_socket))
        return refusal(405,
                       from_socket
                           ? "only GET, POST and DELETE are understood here"
                           : "only GET is understood here; changes go through the agent's socket");
    if (request.target().empty() || request.target().front() != '/')
        return refusal(400, "the path does not begin with /");
    return {};
}

HttpResponse parse_failure(const ErrorCode& error) {
    if (error == http::error::header_limit)
        return refusal(431, fmt::format("the headers are longer than {} bytes", kHeaderBytesMax));
    if (error == http::error::body_limit)
        return refusal(413, fmt::format("the body is longer than {} bytes", kBodyBytesMax));
    return refusal(400, "this is not an HTTP request");
}

Task<HttpResponse> answer(std::shared_ptr<State> state, HttpRequest request) {
    std::string what;
    try {
        HttpResponse response = co_await state->handler(std::move(request));
        co_return response;
    } catch (const std::exception& error) {
        what = error.what();
    }
    log::error("http.handler_failed", "a request could not be answered", {{"error", what}});
    Error error{Errc::io, "the agent could not answer; its log says why"};
    co_return http_error(500, error);
}

template <class Stream>
Task<> send(Stream& stream, HttpResponse response, const State& state) {
    http::response<http::string_body> message;
    message.version(11);
    message.result(response.status);
    message.set(http::field::content_type, response.content_type);
    message.set(http::field::cache_control, "no-store");
    message.set("X-Content-Type-Options", "nosniff");
    if (response.status == 405) message.set(http::field::allow, "GET, POST, DELETE");
    message.keep_alive(false);
    message.body() = std::move(response.body);
    message.prepare_payload();
    stream.expires_after(state.options.request_timeout);
    ErrorCode error;
    auto token = asio::redirect_error(asio::use_awaitable, error);
    co_await http::async_write(stream, message, token);
    if (error) co_return;
    // Closing with bytes unread would reset the connection and take the answer away from the
    // client.
    stream.socket().shutdown(Stream::socket_type::shutdown_send, error);
    std::array<char, 4096> rest;
    auto rest_buffer = asio::buffer(rest);
    for (std::size_t left = kBodyBytesMax * 2; left > 0 && !error;) {
        std::size_t count = co_await stream.async_read_some(rest_buffer, token);
        left -= std::min(left, count);
    }
}

// One request a connection: nothing to keep alive, nothing to pipeline.
template <class Stream>
Task<> converse(std::shared_ptr<State> state, Stream& stream, bool from_socket) {
    beast::flat_buffer buffer(kHeaderBytesMax + kBodyBytesMax);
    http::request_parser<http::string_body> parser;
    parser.header_limit(kHeaderBytesMax);
    parser.body_limit(kBodyBytesMax);
    stream.expires_after(state->options.request_timeout);
    ErrorCode error;
    auto token = asio::redirect_error(asio::use_awaitable, error);
    co_await http::async_read(stream, buffer, parser, token);
    HttpResponse response;
    if (error) {
        bool gone = error.category() != http::make_error_code(http::error::bad_method).category() ||
                    error == http::error::end_of_stream || error == http::error::partial_message;
        if (gone) co_return;
        response = parse_failure(error);
    } else if (auto refused = refuse(parser.get(), from_socket)) {
        response = std::move(*refused);
    } else {
        HttpRequest request;
        request.method = std::string(parser.get().method_string());
        request.path = std::string(parser.get().target());
        request.body = std::move(parser.get().body());
        request.from_socket = from_socket;
        stream.expires_never();
        response = co_await answer(state, std::move(request));
    }
    co_await send(stream, std::move(response), *state);
}

template <class Stream>
Task<> serve(std::shared_ptr<State> state, Stream accepted, bool from_socket) {
    auto stream = std::make_shared<Stream>(std::move(accepted));
    auto place = state->closers.insert(state->closers.end(), [stream] { stream->close(); });
    try {
        co_await converse(state, *stream, from_socket);
    } catch (const std::exception& error) {
        log::warn("http.connection_failed", "a connection ended early", {{"error", error.what()}});
    }
    stream->close();
    state->closers.erase(place);
}

template <class Protocol>
Task<> accept_all(std::shared_ptr<State> state, asio::basic_socket_acceptor<Protocol>& acceptor,
                  bool from_socket) {
    using Stream = beast::basic_stream<Protocol>;
    constexpr auto kPause = std::chrono::milliseconds(100);
    const std::size_t most = from_socket ? kConnectionsMax : kTcpConnectionsMax;
    while (!state->stopping) {
        ErrorCode error;
        auto token = asio::redirect_error(asio::use_awaitable, error);
        auto socket = co_await acceptor.async_accept(token);
        if (state->stopping) break;
        if (error) {
            // Out of descriptors: without the pause this would spin until one is free.
            co_await sleep_for(kPause);
            continue;
        }
        if (state->closers.size() >= most) continue;
        Stream stream(std::move(socket));
        state->group.spawn(serve<Stream>(state, std::move(stream), from_socket));
    }
}

Result<> open_tcp(State& state) {
    ErrorCode error;
    auto address = asio::ip::make_address(state.options.address, error);
    if (error || !address.is_loopback())
        return fail(Errc::invalid_argument,
                    fmt::format("{} is not a loopback address", state.options.address));
    Tcp::endpoint endpoint(address, static_cast<unsigned short>(state.options.port));
    state.tcp.open(endpoint.protocol(), error);
    if (!error) state.tcp.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) state.tcp.bind(endpoint, error);
    if (!error) state.tcp.listen(64, error);
    if (!error) return {};
    bool taken = error == boost::system::errc::address_in_use;
    return fail(taken ? Errc::busy : Errc::unavailable,
                fmt::format("cannot listen on {}:{}: {}", state.options.address, state.options.port,
                            error.message()),
                taken ? "another agent or program has the port; see [web] listen" : "");
}

// Makes way for a new socket: only one that nobody listens on is removed.
Result<> clear_socket(State& state) {
    const std::string& path = state.options.socket;
    struct stat info {};
    if (lstat(path.c_str(), &info) != 0) return {};
    if (!S_ISSOCK(info.st_mode))
        return fail(Errc::refused, fmt::format("{} is there and is not a socket", path),
                    "move it away");
    Local::socket probe(state.local.get_executor());
    ErrorCode error;
    probe.connect(Local::endpoint(path), error);
    if (!error) return fail(Errc::busy, fmt::format("another agent listens on {}", path));
    if (error != boost::system::errc::connection_refused)
        return fail(Errc::busy, fmt::format("cannot tell whether an agent listens on {}: {}", path,
                                            error.message()));
    if (unlink(path.c_str()) != 0 && errno != ENOENT)
        return fail(Errc::io,
                    fmt::format("cannot remove the old socket {}: {}", path,
                                ErrorCode(errno, boost::system::system_category()).message()));
    return {};
}

Result<> open_local(State& state) {
    WV_CHECK(clear_socket(state));
    const std::string& path = state.options.socket;
    ErrorCode error;
    state.local.open(Local(), error);
    if (!error) state.local.bind(Local::endpoint(path), error);
    // Nobody can connect before listen(), so the mode is right from the first connection on.
    if (!error && chmod(path.c_str(), 0600) != 0)
        error = ErrorCode(errno, boost::system::system_category());
    if (!error) state.local.listen(64, error);
    if (!error) return {};
    bool taken = error == boost::system::errc::address_in_use;
    return fail(taken ? Errc::busy : Errc::io,
                fmt::format("cannot listen on {}: {}", path, error.message()));
}

class BeastServer final : public HttpServer {
public:
    explicit BeastServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
    ~BeastServer() override { close_all(); }

    unsigned port() const override {
        ErrorCode error;
        auto endpoint = state_->tcp.local_endpoint(error);
        return error ? 0 : endpoint.port();
    }

    Task<> stop() override {
        auto state = state_;
        close_all();
        co_await state->group.join();
    }

private:
    void close_all() {
        if (std::exchange(state_->stopping, true)) return;
        ErrorCode ignored;
        bool listened = state_->local.is_open();
        state_->tcp.close(ignored);
        state_->local.close(ignored);
        if (listened) unlink(state_->options.socket.c_str());
        auto closers = state_->closers;
        for (auto& close : closers)
            close();
    }

    std::shared_ptr<State> state_;
};

}  // namespace

HttpResponse http_error(unsigned status, const Error& error) {
    nlohmann::ordered_json whole{{"error", json_of(error)}};
    HttpResponse response;
    response.status = status;
    response.body = whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
    return response;
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(asio::any_io_executor executor,
                                                       Options options, Handler handler) {
    auto state =
        std::make_shared<State>(std::move(executor), std::move(options), std::move(handler));
    bool tcp = state->options.port != 0 || state->options.any_port;
    if (tcp) WV_CHECK(open_tcp(*state));
    if (!state->options.socket.empty()) WV_CHECK(open_local(*state));
    if (tcp) state->group.spawn(accept_all<Tcp>(state, state->tcp, false));
    if (state->local.is_open()) state->group.spawn(accept_all<Local>(state, state->local, true));
    return std::make_unique<BeastServer>(std::move(state));
}

}  // namespace walvault::agent
