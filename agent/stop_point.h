// StopPoint: a target resolved: history, timeline, LSN, base, what is kept and what is left out.
//
// Semantics are fixed in docs/targets.md. Everything here only reads the repository.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/restore_window.h"
#include "agent/target.h"
#include "storage/repository_view.h"

namespace walvault::agent {

struct StopPoint {
    Target target;
    storage::HistoryRecord history;
    pb::BackupInfo base;                  // the newest complete one whose stop is not after cut_lsn
    Lsn cut_lsn;                          // records that start before it are kept; nothing else is
    std::optional<WalFinding> last_kept;  // the last commit before cut_lsn
    std::optional<WalFinding> first_left_out;  // the first commit or abort from cut_lsn on
    std::uint64_t left_out_commits = 0;        // all that follow; rounded to frames if far
    bool left_out_is_known = true;  // false: WAL behind it is archived, and the two are not told
    // What PostgreSQL is told: stop after the record that starts here. None, for the base of a
    // standby with nothing to keep after it: stop as soon as it is consistent (recovery_target =
    // 'immediate').
    std::optional<Lsn> recovery_lsn;
    // WAL that replay reads: from the segment of the base's start to the end of the last record.
    Lsn wal_from_lsn;
    Lsn wal_to_lsn;

    TimelineId timeline() const { return history.timeline; }
};

struct ResolveContext {
    std::string cluster;
    WallTime now{};
    std::string zone = "UTC";  // for messages
    // Only histories of this timeline, or whose id begins so (hexadecimal); both empty: the one
    // being followed, and what was before it.
    std::optional<TimelineId> timeline = {};
    std::string history = {};
};

// Finds the stop point and proves that the WAL from its base to it is stored.
// Errors: outside_window (before, after, in the future, unknown transaction, name or backup), gap,
// ambiguous; the hint names commands that work. Others as the view gives them.
Result<StopPoint> resolve_target(storage::RepositoryView& view, const Target& target,
                                 const ResolveContext& context);

}  // namespace walvault::agent
