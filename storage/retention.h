// Retention: which base backups and WAL packs of a cluster stay, and why. A pure function of what
// is stored and of the rules.
//
// Every second of the window stays restorable along every history that has a moment of its own in
// it: the newest base that ended before the window begins (the anchor) stays, every later one, and
// all WAL from the anchor on. Before the window, the newest base of each day, week or month stays
// as the rules say, with the WAL that makes it consistent and no more.
//
// What is held stays whatever the rules say: of moments the newest base that ended before the
// first, every later one up to the last, and the WAL from the first of these bases to behind the
// last moment; where there is no such base, those that ended by then, and the WAL from the first
// on.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "storage/repository_view.h"

namespace walvault::storage {

// "daily x 30": of each of the last `count` days (weeks from Monday, months; in UTC) before the
// window the newest base. The period in which the window begins is the first of them.
struct RetentionPeriods {
    enum class Unit { day, week, month };
    Unit unit = Unit::day;
    unsigned count = 0;
};

struct RetentionRules {
    std::chrono::seconds window{0};  // zero: everything stays
    std::vector<RetentionPeriods> then;
    unsigned protect_min = 2;  // the newest complete bases, however old
};

// Of one cluster.
struct RetentionFacts {
    WallTime now;
    std::uint64_t segment_bytes = 0;
    std::vector<HistoryRecord> histories;
    std::optional<Id16> current;          // the one being followed
    std::vector<pb::BackupInfo> backups;  // complete ones
    std::vector<pb::PackInfo> wal_packs;
    std::vector<HoldRecord> holds;
    // Where the first transaction of the lineage later than a moment starts; the history's end when
    // there is none. What a resolver cuts at.
    std::function<Result<Lsn>(const Id16& history, WallTime at)> first_after;
};

struct RetentionVerdict {
    bool keep = true;
    std::string reason;  // for people
};

struct RetentionPlan {
    std::optional<WallTime> window_from;  // nothing: everything stays
    // Where the oldest base ended that the history being followed can be restored from to any later
    // moment.
    std::optional<WallTime> restorable_from = {};
    std::vector<RetentionVerdict> backups;  // in the order of the facts
    std::vector<RetentionVerdict> wal_packs;
};

// The window counts back from `now`, but not from later than the latest moment that is stored, so
// that nothing expires while nothing comes in. The history being followed keeps its last moment and
// what that needs, however old.
// Errors: refused when `now` is more than a day behind everything stored (the clock went forward,
// or the stream has not come back); those of `first_after`.
Result<RetentionPlan> plan_retention(const RetentionRules& rules, const RetentionFacts& facts);

}  // namespace walvault::storage
