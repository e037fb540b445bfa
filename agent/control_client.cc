// call_agent: one request over the agent's socket, its error made an Error again.
#include <fmt/format.h>

#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "agent/control.h"

namespace walvault::agent {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using ErrorCode = boost::system::error_code;
using Stream = beast::basic_stream<asio::local::stream_protocol>;
using Response = http::response<http::string_body>;

constexpr auto kSendTimeout = std::chrono::seconds(10);
constexpr auto kAnswerTimeout = std::chrono::seconds(60);
constexpr std::uint64_t kAnswerBytesMax = 64ull << 20;
// sun_path has 108 bytes with its NUL.
constexpr std::size_t kSocketPathMax = 107;

struct Exchange {
    std::string socket;
    http::request<http::string_body> request;
    Response response;
    ErrorCode error;
    bool connected = false;
};

Task<> exchange(Exchange& call) {
    auto executor = co_await asio::this_coro::executor;
    Stream stream(executor);
    auto token = asio::redirect_error(asio::use_awaitable, call.error);
    asio::local::stream_protocol::endpoint endpoint(call.socket);
    stream.expires_after(kSendTimeout);
    co_await stream.async_connect(endpoint, token);
    if (call.error) co_return;
    call.connected = true;
    co_await http::async_write(stream, call.request, token);
    if (call.error) co_return;
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(kAnswerBytesMax);
    stream.expires_after(kAnswerTimeout);
    co_await http::async_read(stream, buffer, parser, token);
    if (!call.error) call.response = parser.release();
}

Errc code_named(std::string_view name) {
    for (int i = 0; i <= static_cast<int>(Errc::cancelled); ++i)
        if (to_string(static_cast<Errc>(i)) == name) return static_cast<Errc>(i);
    return Errc::unavailable;
}

Error error_in(const Response& response) {
    auto body = nlohmann::json::parse(response.body(), nullptr, false);
    if (body.is_object() && body.contains("error") && body["error"].is_object())
        return error_of(body["error"]);
    return {Errc::unavailable,
            fmt::format("the agent answered with HTTP status {}", response.result_int())};
}

}  // namespace

nlohmann::ordered_json json_of(const Error& error) {
    nlohmann::ordered_json body{
        {"code", to_string(error.code)}, {"message", error.message}, {"hint", error.hint}};
    if (error.origin == Origin::server) body["origin"] = "server";
    return body;
}

Error error_of(const nlohmann::json& error) {
    auto text = [&error](const char* key) {
        auto found = error.find(key);
        return found != error.end() && found->is_string() ? found->get<std::string>()
                                                          : std::string();
    };
    return {code_named(text("code")), text("message"), text("hint"),
            text("origin") == "server" ? Origin::server : Origin::here};
}

bool agent_listens(const std::string& socket) {
    if (socket.empty() || socket.size() > kSocketPathMax) return false;
    asio::io_context loop(1);
    asio::local::stream_protocol::socket probe(loop);
    ErrorCode error;
    probe.connect(asio::local::stream_protocol::endpoint(socket), error);
    return !error;
}

Result<std::string> call_agent(const std::string& socket, const std::string& method,
                               const std::string& path, const std::string& body) {
    if (socket.empty() || socket.size() > kSocketPathMax)
        return fail(Errc::invalid_argument,
                    fmt::format("\"{}\" is not a socket's path of 1 to 107 bytes", socket));
    Exchange call;
    call.socket = socket;
    call.request.version(11);
    call.request.method_string(method);
    call.request.target(path);
    call.request.set(http::field::host, "localhost");
    call.request.keep_alive(false);
    call.request.body() = body;
    call.request.prepare_payload();

    asio::io_context loop(1);
    std::exception_ptr failure;
    asio::co_spawn(loop, exchange(call),
                   [&failure](std::exception_ptr thrown) { failure = thrown; });
    loop.run();
    if (failure)
        return fail(Errc::unavailable,
                    fmt::format("the call to the agent on {} broke off", socket));
    if (call.error) {
        std::string what =
            call.connected ? "the agent on {} did not answer: {}" : "no agent listens on {}: {}";
        return fail(
            Errc::unavailable, fmt::format(fmt::runtime(what), socket, call.error.message()),
            call.connected ? "" : "start it: walvault run, or systemctl start walvault@NAME");
    }
    if (call.response.result_int() >= 400) return fail(error_in(call.response));
    return std::move(call.response.body());
}

}  // namespace walvault::agent
