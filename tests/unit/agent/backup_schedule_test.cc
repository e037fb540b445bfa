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

storage::HistoryRecord history(int number, std::optional<int> parent = {},
                               pb::HistoryOpened::Cause cause = pb::HistoryOpened::FIRST) {
    storage::HistoryRecord record;
    record.id[0] = static_cast<std::byte>(number);
    record.start_lsn = Lsn{static_cast<std::uint64_t>(number) * 1000};
    record.cause = cause;
    if (parent) {
        record.parent.emplace();
        (*record.parent)[0] = static_cast<std::byte>(*parent);
        record.fork_lsn = record.start_lsn + 100;
    }
    return record;
}
pb::BackupInfo base(int number, std::uint64_t start, std::int64_t at) {
    pb::BackupInfo info;
    info.set_history_id(std::string(as_text(history(number).id)));
    info.set_start_lsn(start);
    info.set_stop_lsn(start + 10);
    info.set_started_at_us(at);
    return info;
}

TEST_CASE("a promotion goes on with its parent's bases; a fork and a gap want a new one") {
    const auto first = history(1);
    std::vector<pb::BackupInfo> backups{base(1, 1000, 11), base(1, 1500, 22), base(1, 2500, 33)};
    auto started = [&](const storage::HistoryRecord& current, std::vector<pb::GapFound> gaps = {}) {
        return newest_base_started(current, {first, history(2, 1, pb::HistoryOpened::PROMOTION)},
                                   backups, gaps);
    };
    CHECK(started(first) == WallTime(Micros(33)));
    // The third is of what was left behind at 2000.
    CHECK(started(history(2, 1, pb::HistoryOpened::PROMOTION)) == WallTime(Micros(22)));
    CHECK(started(history(3, 2, pb::HistoryOpened::PROMOTION)) == WallTime(Micros(22)));
    CHECK_FALSE(started(history(2, 1, pb::HistoryOpened::FORK)));
    CHECK_FALSE(started(history(2, {}, pb::HistoryOpened::GAP)));

    // Taken in the segment that the promotion begins in, before it.
    backups.push_back(base(1, 2050, 44));
    CHECK(started(history(2, 1, pb::HistoryOpened::PROMOTION)) == WallTime(Micros(44)));
    CHECK(started(history(3, 2, pb::HistoryOpened::PROMOTION)) == WallTime(Micros(44)));
    backups.pop_back();

    pb::GapFound barrier;
    barrier.set_history_id(std::string(as_text(first.id)));
    barrier.set_from_lsn(1600);
    barrier.set_to_lsn(1700);
    CHECK(started(first, {barrier}) == WallTime(Micros(33)));
    barrier.set_to_lsn(2600);
    CHECK_FALSE(started(first, {barrier}));
    CHECK_FALSE(started(history(2, 1, pb::HistoryOpened::PROMOTION), {barrier}));
}

}  // namespace
}  // namespace walvault::agent
