// A slot on a server that is not streamed from: what it is, and moving it by hand.
#pragma once

#include <optional>
#include <string>

#include "wal/walsender.h"

namespace walvault::wal {

struct StandbyFacts {
    bool in_recovery = false;  // false: it is a primary
    std::uint64_t system_identifier = 0;
    TimelineId timeline = 0;
    // Replayed, or a primary's own, before the timeline was asked for: on that one or one it came
    // from.
    Lsn replayed_lsn;
    struct Slot {
        bool physical = false;
        bool active = false;
        bool lost = false;
        std::optional<Lsn> restart_lsn;  // nothing: it holds no WAL
    };
    std::optional<Slot> slot;
};
// Two connections to one server: SQL tells of the slot, a walsender of the timeline.
Task<Result<StandbyFacts>> standby_facts(Connection& sql, Connection& walsender, std::string slot);

// pg_replication_slot_advance: a standby moves it no further than what it has replayed. Returns
// where the slot is then. Errors: busy if somebody uses it.
Task<Result<Lsn>> advance_slot(Connection& sql, std::string slot, Lsn to);

}  // namespace walvault::wal
