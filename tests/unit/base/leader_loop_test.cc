#include "base/leader_loop.h"

#include <doctest/doctest.h>

#include <future>
#include <thread>

#include "base/blocking.h"
#include "base/task_group.h"

using namespace walvault;
using namespace std::chrono_literals;

namespace {

// Handlers of one loop: never two at a time, whichever thread leads.
class OneAtATime {
public:
    Task<> turn() {
        auto executor = co_await asio::this_coro::executor;
        for (int i = 0; i < 200; ++i) {
            if (inside_.exchange(true)) overlaps_++;
            ++turns;
            inside_ = false;
            co_await asio::post(executor, asio::use_awaitable);
        }
    }
    int overlaps() const { return overlaps_; }
    int turns = 0;

private:
    std::atomic<bool> inside_{false};
    std::atomic<int> overlaps_{0};
};

// Both ways to run a job must behave alike.
template <class Work>
Task<std::invoke_result_t<Work&>> run(bool here, Pool& pool, Work work) {
    if (here) co_return co_await run_here_or_on(pool, std::move(work));
    co_return co_await run_on(pool, std::move(work));
}

Task<> run_short_jobs(bool here, Pool& pool, int& done) {
    for (int i = 0; i < 1000; ++i) {
        auto job = [i] { return std::pair(i, std::this_thread::get_id()); };
        auto [value, thread] = co_await run(here, pool, std::move(job));
        CHECK(value == i);
        CHECK(thread == std::this_thread::get_id());
        ++done;
    }
}

// A job that ends only when handlers run beside it.
struct HeldJob {
    std::promise<void> release;
    std::atomic<bool> was_released{false};
    std::atomic<std::thread::id> thread{};
    std::thread::id resumed_on{};

    Task<> block(bool here, Pool& pool) {
        auto job = [this] {
            thread = std::this_thread::get_id();
            was_released = release.get_future().wait_for(30s) == std::future_status::ready;
            return 7;
        };
        CHECK(co_await run(here, pool, std::move(job)) == 7);
        resumed_on = std::this_thread::get_id();
    }
    Task<> release_from_loop() {
        auto executor = co_await asio::this_coro::executor;
        while (thread.load() == std::thread::id())
            co_await asio::post(executor, asio::use_awaitable);
        CHECK(std::this_thread::get_id() != thread.load());
        release.set_value();
    }
};

}  // namespace

TEST_CASE("short jobs run on the loop's own thread, and the loop ends with them") {
    for (bool here : {false, true}) {
        LeaderLoop loop;
        Pool pool(loop);
        TaskGroup group(loop.context().get_executor());
        int done = 0;
        group.spawn(run_short_jobs(here, pool, done));
        loop.run();
        CHECK(done == 1000);
    }
}

TEST_CASE("where there are threads for it, a job never runs on the loop") {
    asio::io_context loop(1);
    Pool pool(1);
    TaskGroup group(loop.get_executor());
    std::thread::id thread;
    auto task = [&]() -> Task<> {
        auto job = [] { return std::this_thread::get_id(); };
        thread = co_await run_here_or_on(pool, std::move(job));
        CHECK(std::this_thread::get_id() != thread);
    };
    group.spawn(task());
    loop.run();
    CHECK(thread != std::thread::id());
}

TEST_CASE("a job that hangs does not hold up the loop, however often that happens") {
    bool here = false;
    SUBCASE("by the queue") {}
    SUBCASE("at once") { here = true; }
    LeaderLoop loop(5ms);
    Pool pool(loop);
    TaskGroup group(loop.context().get_executor());
    std::array<HeldJob, 4> jobs;
    OneAtATime others;
    auto all = [&]() -> Task<> {
        for (HeldJob& job : jobs) {
            group.spawn(job.release_from_loop());
            group.spawn(others.turn());
            co_await job.block(here, pool);
        }
    };
    group.spawn(all());
    loop.run();
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        CAPTURE(i);
        CHECK(jobs[i].was_released);
        // The one that was held up follows, and leads again when the other one is.
        CHECK(jobs[i].resumed_on != jobs[i].thread.load());
        if (i > 0) CHECK(jobs[i].thread.load() == jobs[i - 1].resumed_on);
    }
    CHECK(others.turns == 800);
    CHECK(others.overlaps() == 0);
}

TEST_CASE("handlers run one at a time while jobs hang and end at any moment") {
    bool here = false;
    SUBCASE("by the queue") {}
    SUBCASE("at once") { here = true; }
    LeaderLoop loop(1ms);
    Pool pool(loop);
    TaskGroup group(loop.context().get_executor());
    OneAtATime others;
    int resumed = 0;
    auto jobs = [&]() -> Task<> {
        for (int i = 0; i < 200; ++i) {
            auto job = [i] {
                // About as long as the patience: the takeover and the end meet.
                auto until =
                    std::chrono::steady_clock::now() + std::chrono::microseconds(50 * (i % 50));
                while (std::chrono::steady_clock::now() < until)
                    std::this_thread::yield();
                return i;
            };
            CHECK(co_await run(here, pool, std::move(job)) == i);
            ++resumed;
        }
    };
    group.spawn(jobs());
    for (int i = 0; i < 50; ++i)
        group.spawn(others.turn());
    loop.run();
    CHECK(resumed == 200);
    CHECK(others.turns == 50 * 200);
    CHECK(others.overlaps() == 0);
}
