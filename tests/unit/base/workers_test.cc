#include "base/workers.h"

#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace walvault {
namespace {

// What is done waits until it is let through, and notes that it began, in which thread.
struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<int> begun;
    std::set<std::thread::id> threads;
    int ended = 0;
    bool is_open = false;

    void pass(int number) {
        std::unique_lock lock(mutex);
        begun.push_back(number);
        threads.insert(std::this_thread::get_id());
        changed.notify_all();
        changed.wait(lock, [this] { return is_open; });
        ++ended;
        changed.notify_all();
    }
    void open() {
        std::lock_guard lock(mutex);
        is_open = true;
        changed.notify_all();
    }
    template <class Condition>
    bool wait(Condition condition) {
        std::unique_lock lock(mutex);
        return changed.wait_for(lock, std::chrono::seconds(60), condition);
    }
};

}  // namespace

TEST_CASE("work is begun in its order, by no more threads than there may be") {
    Gate gate;
    Workers workers(2);
    for (int number = 0; number < 6; ++number)
        REQUIRE(workers.start([&gate, number] { gate.pass(number); }));
    REQUIRE(gate.wait([&] { return gate.begun.size() == 2; }));
    CHECK(std::set<int>(gate.begun.begin(), gate.begun.end()) == std::set<int>{0, 1});
    gate.open();
    REQUIRE(gate.wait([&] { return gate.ended == 6; }));
    CHECK(gate.threads.size() <= 2);
    CHECK(std::set<int>(gate.begun.begin(), gate.begun.end()).size() == 6);
}

TEST_CASE("the end waits for what is under way and drops the rest") {
    Gate gate;
    auto workers = std::make_unique<Workers>(1);
    const auto held = std::make_shared<int>(0);
    for (int number = 0; number < 5; ++number)
        REQUIRE(workers->start([&gate, number, held] { gate.pass(number); }));
    REQUIRE(gate.wait([&] { return gate.begun.size() == 1; }));
    std::thread opening([&gate] { gate.open(); });
    workers.reset();
    opening.join();
    // The one thread may have taken more before it saw that it was to end: each was ended, too.
    CHECK(gate.ended == static_cast<int>(gate.begun.size()));
    CHECK(held.use_count() == 1);
}

TEST_CASE("one thread does all where there may be one") {
    Gate gate;
    gate.open();
    Workers workers(0);
    for (int number = 0; number < 100; ++number)
        REQUIRE(workers.start([&gate, number] { gate.pass(number); }));
    REQUIRE(gate.wait([&] { return gate.ended == 100; }));
    CHECK(gate.threads.size() == 1);
    for (int number = 0; number < 100; ++number)
        CHECK(gate.begun[static_cast<std::size_t>(number)] == number);
}

}  // namespace walvault
