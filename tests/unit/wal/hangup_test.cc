#include "wal/hangup.h"

#include <doctest/doctest.h>

#include <optional>

#include "base/task_group.h"
#include "wal/connection.h"

namespace walvault::wal {
namespace {

// A server that takes connections and never says a word.
struct SilentServer {
    explicit SilentServer(asio::io_context& loop)
        : acceptor(loop, {asio::ip::make_address("127.0.0.1"), 0}) {}
    std::string conninfo() const {
        return "host=127.0.0.1 user=nobody sslmode=disable gssencmode=disable port=" +
               std::to_string(acceptor.local_endpoint().port());
    }
    asio::ip::tcp::acceptor acceptor;
};

Task<> connect_into(Connection::Options options, std::optional<Errc>& ended) {
    auto connection = co_await Connection::connect(std::move(options));
    ended = connection ? Errc::busy : connection.error().code;
}

// Hangs up when the client has said who it is, and so waits for an answer.
Task<> hang_up_after_startup(SilentServer& server, Hangup hangup) {
    auto socket = co_await server.acceptor.async_accept(asio::use_awaitable);
    char byte = 0;
    co_await socket.async_read_some(asio::buffer(&byte, 1), asio::use_awaitable);
    hangup.hang_up();
}

TEST_CASE("hanging up ends a connecting that waits for the server") {
    asio::io_context loop;
    SilentServer server(loop);
    TaskGroup tasks(loop.get_executor());
    Connection::Options options;
    options.conninfo = server.conninfo();
    options.connect_timeout = std::chrono::seconds(60);
    std::optional<Errc> ended;
    tasks.spawn(connect_into(options, ended));
    tasks.spawn(hang_up_after_startup(server, options.hangup));
    loop.run_for(std::chrono::seconds(30));
    CHECK(ended == Errc::cancelled);
}

TEST_CASE("nothing is connected with a switch that was pulled before") {
    asio::io_context loop;
    SilentServer server(loop);
    TaskGroup tasks(loop.get_executor());
    Connection::Options options;
    options.conninfo = server.conninfo();
    options.hangup.hang_up();
    std::optional<Errc> ended;
    tasks.spawn(connect_into(options, ended));
    loop.run_for(std::chrono::seconds(30));
    CHECK(ended == Errc::cancelled);
}

TEST_CASE("silence pulls the switch of a connecting that hears nothing") {
    asio::io_context loop;
    SilentServer server(loop);
    TaskGroup tasks(loop.get_executor());
    Connection::Options options;
    options.conninfo = server.conninfo();
    options.connect_timeout = std::chrono::seconds(60);
    std::optional<Errc> ended;
    Silence silence(loop.get_executor(), options.hangup, std::chrono::milliseconds(50));
    tasks.spawn(connect_into(options, ended));
    loop.run_for(std::chrono::seconds(30));
    CHECK(ended == Errc::cancelled);
}

TEST_CASE("silence that was broken begins anew, and is over with its owner") {
    asio::io_context loop;
    Hangup hangup;
    {
        Silence silence(loop.get_executor(), hangup, std::chrono::seconds(60));
        silence.broken();
    }
    // Nothing is left to wait for: the timers ended without pulling the switch.
    loop.run();
    CHECK_FALSE(hangup.hung_up());
}

TEST_CASE("a switch keeps no socket alive and wakes those that are left") {
    asio::io_context loop;
    Hangup hangup;
    auto gone = std::make_shared<Hangup::Socket>(loop);
    auto there = std::make_shared<Hangup::Socket>(loop);
    hangup.watch(gone);
    hangup.watch(there);
    CHECK(gone.use_count() == 1);
    gone.reset();
    Hangup same = hangup;
    same.hang_up();
    CHECK(hangup.hung_up());
    CHECK_FALSE(Hangup().hung_up());
}

}  // namespace
}  // namespace walvault::wal
