// A stream of many small messages that is let gather.
#include <doctest/doctest.h>

#include <array>
#include <filesystem>

#include "base/event.h"
#include "base/task_group.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/wal/server_words.h"
#include "wal/connection.h"

namespace walvault::wal {
namespace {

using namespace std::chrono_literals;
constexpr int kRows = 200;

struct GatherStage {
    ScratchDirectory directory;
    asio::io_context loop;
    Local::acceptor acceptor{loop, directory / ".s.PGSQL.5432"};
    Event never{loop.get_executor()};  // notified: waits for it are pauses
    std::string heard;
    Hangup hangup;
    std::unique_ptr<Connection> connection;
};

// Begins a copy, sends a row each now and then, and hears what comes meanwhile.
Task<> serve(GatherStage& stage) {
    Local::socket socket = co_await heard_client(stage.acceptor);
    co_await socket.async_write_some(asio::buffer(kCopyBoth), asio::use_awaitable);
    socket.non_blocking(true);
    std::array<char, 1024> heard;
    for (int i = 0; i < kRows; ++i) {
        boost::system::error_code error;
        co_await socket.async_write_some(asio::buffer(kRow),
                                         asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return;  // the client has closed
        co_await wait_for(stage.never, 200us);
        const std::size_t count = socket.read_some(asio::buffer(heard), error);
        if (!error) stage.heard.append(heard.data(), count);
    }
    co_await socket.async_write_some(asio::buffer(kCompleted), asio::use_awaitable);
}

Task<Result<>> begin(GatherStage& stage) {
    Connection::Options options;
    options.conninfo = "host=" + stage.directory.path() + " user=nobody dbname=x";
    options.hangup = stage.hangup;
    WV_CO_TRY(stage.connection, co_await Connection::connect(std::move(options)));
    WV_CO_TRY(auto begun, co_await stage.connection->query("START_REPLICATION"));
    CHECK(begun.back().kind == QueryResult::Kind::copy_both);
    co_return Result<>();
}

template <class Client>
Result<> play(GatherStage& stage, Client client) {
    Result<> done = fail(Errc::cancelled, "not over");
    TaskGroup tasks(stage.loop.get_executor());
    const auto run = [&]() -> Task<> { done = co_await client(); };
    tasks.spawn(serve(stage));
    tasks.spawn(run());
    stage.loop.run_for(30s);
    return done;
}

std::size_t open_files() {
    std::size_t count = 0;
    for (auto each = std::filesystem::directory_iterator("/proc/self/fd"); each != end(each);
         ++each)
        ++count;
    return count;
}

}  // namespace

TEST_CASE("what gathers is all there afterwards, with few wake-ups, and writing goes on") {
    GatherStage stage;
    int rows = 0;
    int waits = 0;
    const auto client = [&]() -> Task<Result<>> {
        WV_CO_CHECK(co_await begin(stage));
        for (;;) {
            WV_CO_TRY(auto row, stage.connection->poll_copy_data());
            if (row) {
                ++rows;
                continue;
            }
            ++waits;
            WV_CO_TRY(auto woken, co_await stage.connection->wait_copy_data(20s));
            if (woken == Connection::CopyWait::ended) break;
            if (woken == Connection::CopyWait::timed_out) co_return fail(Errc::busy, "no end");
            WV_CO_CHECK(co_await stage.connection->put_copy_data(as_bytes("before")));
            TaskGroup writing(stage.loop.get_executor());
            const auto write = [&]() -> Task<> {
                CHECK(co_await stage.connection->put_copy_data(as_bytes("during")));
            };
            writing.spawn(write());
            co_await stage.connection->gather(10ms);
            co_await writing.join();
        }
        WV_CO_TRY(auto results, co_await stage.connection->results_after_copy());
        CHECK(results.back().kind == QueryResult::Kind::command);
        co_return Result<>();
    };
    const Result<> done = play(stage, client);
    CHECK_MESSAGE(done.has_value(), (done ? "" : done.error().message));
    CHECK(rows == kRows);
    CHECK(waits < kRows / 4);
    CHECK(stage.heard.find("before") != std::string::npos);
    CHECK(stage.heard.find("during") != std::string::npos);
}

TEST_CASE("a connection that is closed or hung up while it gathers leaves nothing open") {
    for (const bool hangs_up : {false, true}) {
        CAPTURE(hangs_up);
        const std::size_t before = open_files();
        {
            GatherStage stage;
            const auto client = [&]() -> Task<Result<>> {
                WV_CO_CHECK(co_await begin(stage));
                WV_CO_TRY(auto woken, co_await stage.connection->wait_copy_data(20s));
                CHECK(woken == Connection::CopyWait::readable);
                TaskGroup ending(stage.loop.get_executor());
                const auto end = [&]() -> Task<> {
                    co_await wait_for(stage.never, 1ms);
                    hangs_up ? stage.hangup.hang_up() : stage.connection->close();
                };
                ending.spawn(end());
                co_await stage.connection->gather(20ms);
                co_await ending.join();
                auto waited = co_await stage.connection->wait_copy_data(20s);
                CHECK(waited.error().code == Errc::cancelled);
                stage.loop.stop();
                co_return Result<>();
            };
            const Result<> done = play(stage, client);
            CHECK_MESSAGE(done.has_value(), (done ? "" : done.error().message));
        }
        CHECK(open_files() == before);
    }
}

}  // namespace walvault::wal
