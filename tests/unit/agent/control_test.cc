#include "agent/control.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/task_group.h"

namespace walvault::agent {
namespace {

Task<HttpResponse> answer(HttpRequest request) {
    if (request.path == "/metrics") {
        HttpResponse response;
        response.body =
            request.method + " " + request.body + (request.from_socket ? " socket" : " tcp");
        co_return response;
    }
    if (request.path == "/throw") throw std::runtime_error("inside");
    Error error{Errc::refused, "no such page", "look elsewhere"};
    co_return http_error(404, error);
}

// A server on its own thread, with a socket in a directory of its own.
class Fixture {
public:
    explicit Fixture(std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
        std::string pattern = std::filesystem::temp_directory_path() / "walvault-http-XXXXXX";
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        directory = pattern;
        options.socket = directory + "/s";
        options.address = "127.0.0.1";
        options.any_port = true;
        options.request_timeout = timeout;
        auto listening = HttpServer::listen(loop.get_executor(), options, answer);
        REQUIRE_MESSAGE(listening, listening.error().message);
        server = std::move(*listening);
        port = server->port();
        thread = std::thread([this] { loop.run(); });
    }
    ~Fixture() {
        asio::post(loop, [this] { group.spawn(server->stop()); });
        thread.join();  // ends only when every connection is gone
        CHECK_FALSE(std::filesystem::exists(options.socket));
        std::filesystem::remove_all(directory);
    }

    std::string over_tcp(const std::string& request) {
        asio::io_context io;
        asio::ip::tcp::socket socket(io);
        asio::ip::tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"),
                                         static_cast<unsigned short>(port));
        socket.connect(endpoint);
        boost::system::error_code error;
        for (std::size_t sent = 0; sent < request.size() && !error;)
            sent += socket.write_some(asio::buffer(request.data() + sent, request.size() - sent),
                                      error);
        std::string reply;
        std::array<char, 4096> piece;
        boost::system::error_code end;
        while (!end)
            reply.append(piece.data(), socket.read_some(asio::buffer(piece), end));
        return reply;
    }

    asio::io_context loop;
    TaskGroup group{loop.get_executor()};
    std::string directory;
    HttpServer::Options options;
    std::unique_ptr<HttpServer> server;
    unsigned port = 0;
    std::thread thread;
};

std::string status(const std::string& reply) { return reply.substr(0, 12); }

const std::string kHost = "Host: 127.0.0.1\r\n\r\n";

TEST_CASE("GET is answered on TCP and on the socket") {
    Fixture fixture;
    std::string reply = fixture.over_tcp("GET /metrics HTTP/1.1\r\n" + kHost);
    CHECK(status(reply) == "HTTP/1.1 200");
    CHECK(reply.ends_with("GET  tcp"));
    CHECK(call_agent(fixture.options.socket, "GET", "/metrics").value() == "GET  socket");
    CHECK(call_agent(fixture.options.socket, "POST", "/metrics", "body").value() ==
          "POST body socket");
}

TEST_CASE("An unknown path comes back as the error the agent gave") {
    Fixture fixture;
    CHECK(status(fixture.over_tcp("GET /nothing HTTP/1.1\r\n" + kHost)) == "HTTP/1.1 404");
    auto reply = call_agent(fixture.options.socket, "GET", "/nothing");
    REQUIRE_FALSE(reply);
    CHECK(reply.error().code == Errc::refused);
    CHECK(reply.error().message == "no such page");
    CHECK(reply.error().hint == "look elsewhere");
}

TEST_CASE("Changes and unusual methods are refused over TCP") {
    Fixture fixture;
    for (std::string method : {"HEAD", "TRACE", "POST", "DELETE", "PUT", "OPTIONS", "BREW"})
        CHECK_MESSAGE(
            status(fixture.over_tcp(method + " /metrics HTTP/1.1\r\n" + kHost)) == "HTTP/1.1 405",
            method);
    CHECK_FALSE(call_agent(fixture.options.socket, "TRACE", "/metrics"));
}

TEST_CASE("A Host that is not loopback is turned away") {
    Fixture fixture;
    auto with_host = [&](const std::string& host) {
        return status(fixture.over_tcp("GET /metrics HTTP/1.1\r\n" + host + "\r\n"));
    };
    for (std::string good : {"localhost", "localhost:9858", "127.0.0.1:80", "[::1]", "[::1]:80"})
        CHECK_MESSAGE(with_host("Host: " + good + "\r\n") == "HTTP/1.1 200", good);
    for (std::string bad : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                            "localhost:80:80", ""})
        CHECK_MESSAGE(with_host("Host: " + bad + "\r\n") == "HTTP/1.1 421", bad);
    CHECK(with_host("") == "HTTP/1.1 421");
    CHECK(with_host("Host: localhost\r\nHost: evil\r\n") == "HTTP/1.1 421");
}

TEST_CASE("An error keeps its code, its words and its side over the socket") {
    for (Origin origin : {Origin::here, Origin::server}) {
        Error error{Errc::no_space, "the disk is full", "make room", origin};
        Error again = error_of(nlohmann::json(json_of(error)));
        CHECK(again.code == error.code);
        CHECK(again.message == error.message);
        CHECK(again.hint == error.hint);
        CHECK(again.origin == origin);
    }
    CHECK(error_of(nlohmann::json::parse(R"({"code":7,"message":null})")).code ==
          Errc::unavailable);
}

TEST_CASE("Who listens is told from who does not") {
    Fixture fixture;
    CHECK(agent_listens(fixture.options.socket));
    CHECK_FALSE(agent_listens(fixture.directory + "/none"));
    CHECK_FALSE(agent_listens(std::string(200, 'x')));
}

TEST_CASE("Headers and bodies have bounds") {
    Fixture fixture;
    std::string header = "X: " + std::string(9000, 'a') + "\r\n";
    CHECK(status(fixture.over_tcp("GET / HTTP/1.1\r\n" + header + kHost)) == "HTTP/1.1 431");
    CHECK(status(fixture.over_tcp("POST / HTTP/1.1\r\nContent-Length: 70000\r\n" + kHost)) ==
          "HTTP/1.1 413");
    CHECK(status(fixture.over_tcp("\x16\x03\x01 not http at all\r\n\r\n")) == "HTTP/1.1 400");
    CHECK(call_agent(fixture.options.socket, "POST", "/metrics", std::string(60'000, 'b')));
    CHECK_FALSE(call_agent(fixture.options.socket, "POST", "/metrics", std::string(70'000, 'b')));
}

TEST_CASE("A handler that throws answers 500 and the server goes on") {
    Fixture fixture;
    CHECK(status(fixture.over_tcp("GET /throw HTTP/1.1\r\n" + kHost)) == "HTTP/1.1 500");
    CHECK(status(fixture.over_tcp("GET /metrics HTTP/1.1\r\n" + kHost)) == "HTTP/1.1 200");
}

TEST_CASE("A client that never finishes its request is cut off") {
    Fixture fixture(std::chrono::milliseconds(200));
    auto began = std::chrono::steady_clock::now();
    CHECK(fixture.over_tcp("GET /metrics HT").empty());
    auto took = std::chrono::steady_clock::now() - began;
    CHECK(took >= std::chrono::milliseconds(150));
    CHECK(took < std::chrono::seconds(8));
}

TEST_CASE("A crowd on TCP leaves the socket usable, and stopping ends them all") {
    Fixture fixture;
    asio::io_context io;
    std::vector<asio::ip::tcp::socket> crowd;
    asio::ip::tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"),
                                     static_cast<unsigned short>(fixture.port));
    for (int i = 0; i < 40; ++i) {
        crowd.emplace_back(io);
        crowd.back().connect(endpoint);
    }
    CHECK(call_agent(fixture.options.socket, "GET", "/metrics"));
}

TEST_CASE("The socket is the owner's only, and an old one is replaced, a used one is not") {
    Fixture fixture;
    struct stat info {};
    REQUIRE(stat(fixture.options.socket.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);

    asio::io_context other;
    auto second =
        HttpServer::listen(other.get_executor(), {.socket = fixture.options.socket}, answer);
    REQUIRE_FALSE(second);
    CHECK(second.error().code == Errc::busy);
    auto same_port = HttpServer::listen(other.get_executor(),
                                        {.address = "127.0.0.1", .port = fixture.port}, answer);
    REQUIRE_FALSE(same_port);
    CHECK(same_port.error().code == Errc::busy);

    std::string stale = fixture.directory + "/stale";
    {
        asio::local::stream_protocol::acceptor left_behind(
            other, asio::local::stream_protocol::endpoint(stale));
    }
    REQUIRE(std::filesystem::exists(stale));
    auto replaced = HttpServer::listen(other.get_executor(), {.socket = stale}, answer);
    CHECK(replaced);

    std::string file = fixture.directory + "/file";
    std::ofstream(file) << "precious";
    auto refused = HttpServer::listen(other.get_executor(), {.socket = file}, answer);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::refused);
    CHECK(std::filesystem::exists(file));
    replaced->reset();
    other.run();
}

TEST_CASE("An address that is not loopback is not listened on") {
    asio::io_context loop;
    auto open =
        HttpServer::listen(loop.get_executor(), {.address = "0.0.0.0", .any_port = true}, answer);
    REQUIRE_FALSE(open);
    CHECK(open.error().code == Errc::invalid_argument);
}

TEST_CASE("Without an agent the call says that none listens") {
    auto reply = call_agent("/nonexistent/socket", "GET", "/metrics");
    REQUIRE_FALSE(reply);
    CHECK(reply.error().code == Errc::unavailable);
    CHECK_FALSE(call_agent("/" + std::string(200, 'x'), "GET", "/"));
}

}  // namespace
}  // namespace walvault::agent
