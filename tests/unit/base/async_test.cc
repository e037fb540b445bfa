#include <doctest/doctest.h>

#include <thread>

#include "base/blocking.h"
#include "base/event.h"
#include "base/task_group.h"

using namespace walvault;
using namespace std::chrono_literals;

namespace {

Task<> wait_until_set(Event& event, const bool& flag, int& woken) {
    while (!flag)
        co_await event.wait();
    ++woken;
}

Task<> set_after_turns(Event& event, bool& flag, int turns) {
    auto executor = co_await asio::this_coro::executor;
    for (int i = 0; i < turns; ++i)
        co_await asio::post(executor, asio::use_awaitable);
    flag = true;
    event.notify();
}

Task<> note_join(TaskGroup& group, bool& joined) {
    co_await group.join();
    joined = true;
}

Task<> wait_with_timeout(Event& event, std::chrono::steady_clock::duration timeout, bool& done) {
    co_await wait_for(event, timeout);
    done = true;
}

Task<> double_on_pool(Pool& pool, std::string& result, std::thread::id& worker,
                      std::thread::id& after) {
    std::string text(1000, 'x');
    auto work = [text, &worker] {
        worker = std::this_thread::get_id();
        return text + text;
    };
    result = co_await run_on(pool, std::move(work));
    after = std::this_thread::get_id();
}

}  // namespace

TEST_CASE("an event wakes every coroutine that waits") {
    asio::io_context loop;
    Event event(loop.get_executor());
    TaskGroup group(loop.get_executor());
    bool flag = false;
    int woken = 0;
    for (int i = 0; i < 10; ++i)
        group.spawn(wait_until_set(event, flag, woken));
    group.spawn(set_after_turns(event, flag, 5));
    CHECK(group.running_count() == 11);
    loop.run_for(10s);
    CHECK(woken == 10);
    CHECK(group.running_count() == 0);
}

TEST_CASE("join waits for the last task, and returns at once when there is none") {
    asio::io_context loop;
    TaskGroup group(loop.get_executor());
    TaskGroup joiners(loop.get_executor());
    Event event(loop.get_executor());
    bool flag = false;
    bool joined = false;
    int woken = 0;
    joiners.spawn(note_join(group, joined));
    loop.run_for(10s);
    CHECK(joined);

    joined = false;
    loop.restart();
    group.spawn(wait_until_set(event, flag, woken));
    joiners.spawn(note_join(group, joined));
    while (loop.poll() > 0) {
    }
    CHECK_FALSE(joined);
    flag = true;
    event.notify();
    loop.restart();
    loop.run_for(10s);
    CHECK(joined);
}

TEST_CASE("wait_for returns on the event or on the timeout, whichever is first") {
    asio::io_context loop;
    TaskGroup group(loop.get_executor());
    Event event(loop.get_executor());
    bool done = false;
    group.spawn(wait_with_timeout(event, 1ms, done));
    loop.run_for(10s);
    CHECK(done);

    done = false;
    bool flag = false;
    loop.restart();
    const auto begin = std::chrono::steady_clock::now();
    group.spawn(wait_with_timeout(event, 1h, done));
    group.spawn(set_after_turns(event, flag, 3));
    loop.run_for(10s);
    CHECK(done);
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("run_on works on the pool and resumes on the loop") {
    asio::io_context loop;
    Pool pool(2);
    std::string result;
    std::thread::id worker;
    std::thread::id after;
    TaskGroup group(loop.get_executor());
    auto guard = asio::make_work_guard(loop);
    group.spawn(double_on_pool(pool, result, worker, after));
    while (group.running_count() > 0)
        loop.run_one_for(10s);
    guard.reset();
    CHECK(result == std::string(2000, 'x'));
    CHECK(worker != std::this_thread::get_id());
    CHECK(after == std::this_thread::get_id());
}
