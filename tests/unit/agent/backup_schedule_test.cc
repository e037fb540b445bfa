#include "agent/backup_schedule.h"

#include <doctest/doctest.h>

#include <vector>

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

constexpr seconds kDay = hours(24);
const SteadyTime kSteady{hours(1000)};
const WallTime kNow{hours(500'000)};

TEST_CASE("the first base backup of a history is due at once, also with every = off") {
    BackupSchedule schedule;
    CHECK(schedule.due(kSteady, kNow, std::nullopt, kDay));
    CHECK(schedule.due(kSteady, kNow, std::nullopt, seconds(0)));
}

TEST_CASE("the next one is due when the interval has passed since the last began") {
    BackupSchedule schedule;
    CHECK_FALSE(schedule.due(kSteady, kNow, kNow - kDay + seconds(1), kDay));
    CHECK(schedule.due(kSteady, kNow, kNow - kDay, kDay));
    CHECK_FALSE(schedule.due(kSteady, kNow, kNow - 100 * kDay, seconds(0)));
}

TEST_CASE("after a failure the next waits, each time twice as long, up to a quarter of an hour") {
    BackupSchedule schedule;
    SteadyTime now = kSteady;
    std::vector<int> waited;
    for (int failure = 0; failure < 7; ++failure) {
        schedule.note_failed(now);
        int wait = 0;
        while (!schedule.due(now + seconds(wait), kNow, std::nullopt, kDay))
            ++wait;
        waited.push_back(wait);
        now += seconds(wait);
    }
    CHECK(waited == std::vector<int>{30, 60, 120, 240, 480, 900, 900});
}

TEST_CASE("a failure counts from the beginning again once one was complete") {
    BackupSchedule schedule;
    for (int failure = 0; failure < 3; ++failure)
        schedule.note_failed(kSteady);
    schedule.note_complete();
    schedule.note_failed(kSteady);
    CHECK_FALSE(schedule.due(kSteady + seconds(29), kNow, std::nullopt, kDay));
    CHECK(schedule.due(kSteady + seconds(30), kNow, std::nullopt, kDay));
}

}  // namespace
}  // namespace walvault::agent
