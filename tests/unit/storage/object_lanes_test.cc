#include "storage/object_lanes.h"

#include <doctest/doctest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

namespace walvault::storage {
namespace {

using std::chrono::milliseconds;

// Puts wait until they are let through.
struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    std::set<std::string> begun, open;
    int ended = 0;

    Result<std::uint64_t> put(const ObjectLanes::Object& object) {
        std::unique_lock lock(mutex);
        begun.insert(object.name);
        changed.notify_all();
        changed.wait(lock, [&] { return open.contains(object.name); });
        ++ended;
        if (object.may_be_there) return fail(Errc::refused, "it is there");
        return object.name.size();
    }
    void wait_for_begun(std::size_t count) {
        std::unique_lock lock(mutex);
        REQUIRE(changed.wait_for(lock, std::chrono::seconds(30),
                                 [&] { return begun.size() >= count; }));
    }
    void let(const std::string& name) {
        std::lock_guard lock(mutex);
        open.insert(name);
        changed.notify_all();
    }
};

}  // namespace

TEST_CASE("lanes put several objects at once and tell of each when it is done") {
    Gate gate;
    auto lanes =
        make_object_lanes([&](const ObjectLanes::Object& object) { return gate.put(object); }, 3);
    CHECK(lanes->take_done(milliseconds(60'000)).empty());
    for (const char* name : {"a", "bb", "ccc"}) {
        REQUIRE(lanes->has_room());
        lanes->start({name, std::string(name) == "bb"});
    }
    CHECK_FALSE(lanes->has_room());
    gate.wait_for_begun(3);
    CHECK(lanes->take_done(milliseconds(0)).empty());
    gate.let("ccc");
    auto done = lanes->take_done(milliseconds(30'000));
    REQUIRE(done.size() == 1);
    CHECK(done[0].name == "ccc");
    CHECK(done[0].put_bytes.value() == 3);
    CHECK(lanes->has_room());
    gate.let("bb");
    done = lanes->take_done(milliseconds(30'000));
    REQUIRE(done.size() == 1);
    CHECK(done[0].put_bytes.error().code == Errc::refused);
    CHECK(gate.ended == 2);
    // Whichever comes first, the lanes end after it.
    std::thread letter([&] { gate.let("a"); });
    lanes.reset();
    CHECK(gate.ended == 3);
    letter.join();
}

TEST_CASE("the inline lane has put an object when it was started") {
    int puts = 0;
    auto lane = make_inline_lane([&](const ObjectLanes::Object&) -> Result<std::uint64_t> {
        return static_cast<std::uint64_t>(++puts);
    });
    lane->start({"a", false});
    CHECK(puts == 1);
    CHECK_FALSE(lane->has_room());
    CHECK(lane->take_done(milliseconds(0)).size() == 1);
    CHECK(lane->has_room());
}

}  // namespace walvault::storage
