// How a copy ends that the server ends while it is written to.
#include <doctest/doctest.h>

#include "base/event.h"
#include "base/task_group.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/wal/server_words.h"
#include "wal/connection.h"

namespace walvault::wal {
namespace {

struct EndStage {
    ScratchDirectory directory;
    asio::io_context loop;
    Local::acceptor acceptor{loop, directory / ".s.PGSQL.5432"};
    Event closed{loop.get_executor()};
    bool is_closed = false;
    std::string last_words;
};

// Begins a copy, says its last words, and closes without reading on.
Task<> serve(EndStage& stage) {
    Local::socket socket = co_await heard_client(stage.acceptor);
    const std::string words = kCopyBoth + stage.last_words;
    co_await socket.async_write_some(asio::buffer(words), asio::use_awaitable);
    socket.close();
    stage.is_closed = true;
    stage.closed.notify();
}

struct Seen {
    int rows = 0;
    bool was_written = true;
    Result<std::vector<QueryResult>> results = fail(Errc::not_found, "");
};

// Writes more than once before it reads what came.
Task<Result<>> write_then_read(EndStage& stage, Seen& seen) {
    Connection::Options options;
    options.conninfo = "host=" + stage.directory.path() + " user=nobody dbname=x";
    WV_CO_TRY(auto connection, co_await Connection::connect(std::move(options)));
    WV_CO_TRY(auto begun, co_await connection->query("START_REPLICATION"));
    CHECK(begun.back().kind == QueryResult::Kind::copy_both);
    while (!stage.is_closed)
        co_await stage.closed.wait();
    for (int i = 0; i < 3; ++i) {
        auto tried = connection->try_put_copy_data(as_bytes("status"));
        auto put = co_await connection->put_copy_data(as_bytes("status"));
        seen.was_written = seen.was_written && tried && put;
    }
    for (;;) {
        WV_CO_TRY(auto row, connection->poll_copy_data());
        if (row) {
            ++seen.rows;
            continue;
        }
        WV_CO_TRY(auto woken, co_await connection->wait_copy_data(std::chrono::seconds(20)));
        if (woken == Connection::CopyWait::ended) break;
        if (woken == Connection::CopyWait::timed_out) co_return fail(Errc::busy, "no end");
    }
    seen.results = co_await connection->results_after_copy();
    co_return Result<>();
}

Task<> run(EndStage& stage, Seen& seen, Result<>& done) {
    done = co_await write_then_read(stage, seen);
}

Result<> end_with(const std::string& words, Seen& seen) {
    EndStage stage;
    stage.last_words = words;
    Result<> done = fail(Errc::cancelled, "not over");
    TaskGroup tasks(stage.loop.get_executor());
    tasks.spawn(serve(stage));
    tasks.spawn(run(stage, seen, done));
    stage.loop.run_for(std::chrono::seconds(30));
    return done;
}

}  // namespace

TEST_CASE(
    "a server that ended the copy and closed is heard, whatever was written to it after that") {
    Seen seen;
    const Result<> done = end_with(kRow + kRow + kCompleted, seen);
    CHECK_MESSAGE(done.has_value(), (done ? "" : done.error().message));
    CHECK(seen.was_written);
    CHECK(seen.rows == 2);
    REQUIRE(seen.results.has_value());
    CHECK(seen.results->back().kind == QueryResult::Kind::command);
}

TEST_CASE("a server that closed in the middle of a copy is lost, after all that it had sent") {
    Seen seen;
    const Result<> done = end_with(kRow + kRow, seen);
    REQUIRE_FALSE(done.has_value());
    CHECK(done.error().code == Errc::unavailable);
    CHECK(done.error().message.find("lost") != std::string::npos);
    CHECK(seen.rows == 2);
}

}  // namespace walvault::wal
