// What retention does at a place: deletions that are due, and room where the disk is short of it.
#pragma once

#include <chrono>
#include <vector>

#include "agent/agent_state.h"

namespace walvault::agent {

// The tier of this name; null: none is configured.
TierState* tier_at(AgentState& state, const std::string& place);

struct DueDeletion {
    ExpirePlace place;
    bool only_kept_elsewhere = false;  // what no tier keeps stays
};
// Deletes what was condemned there and is due, no lease holds, and, in the directory, lies on each
// tier that keeps it; that is read back here. Adds to `report`. Errors: as delete_condemned();
// those of the leases' stores.
Task<Result<>> delete_due(AgentState& state, const DueDeletion& due, PlaceRetention& at,
                          ExpireReport& report);

// Copies what lives of packs that are mostly dead there; `report` then tells of what was done. What
// cannot be read stays as it is, after a warning in the log.
Task<> rewrite_packs(AgentState& state, const storage::RetentionSurvey& survey,
                     ExpireReport& report);

// Bytes that have to go for evict_below; zero: none, or it is off.
std::uint64_t needed_room(const AgentState& state);
// Halves of the window, or, where there is none, of the time that is stored, down to ten seconds.
std::vector<std::chrono::seconds> narrower_windows(std::chrono::seconds window,
                                                   std::chrono::seconds stored);
inline constexpr std::chrono::seconds kNarrowestWindow{10};
// One step of letting go in the directory, before its window says so, what one copy keeps: deletes
// what is condemned, or, where nothing is, condemns by a window that is narrowed until enough goes.
// What nobody else keeps stays. Errors: as condemn() and delete_due().
Task<Result<ExpireReport>> relieve_disk(AgentState& state, PlaceRetention& at);

}  // namespace walvault::agent
