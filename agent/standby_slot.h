// StandbyStep: what is done with the slot on a server that is not streamed from; pure.
//
// It is to be ready there when the stream moves to it.
#pragma once

#include <string>
#include <variant>

#include "wal/standby.h"

namespace walvault::agent {

// What the streamed server has been told is stored.
struct StoredPosition {
    std::uint64_t system_identifier = 0;
    TimelineId timeline = 0;
    Lsn acknowledged_lsn;
    std::uint64_t segment_bytes = 0;
    bool from_standby =
        false;  // the streamed server is one; a primary beside it is as it should be
};

// Makes the slot, reserving WAL from the last restart point of that server on. `renew`: one that is
// there holds nothing, and is dropped first.
struct MakeSlot {
    bool renew = false;
};
struct AdvanceSlot {
    Lsn to;
};
// It is where it has to be.
struct SlotIsReady {};
// It is left as it is; `reason` says why it cannot be ready.
struct LeaveSlot {
    std::string reason;
    bool second_primary = false;
};
using StandbyStep = std::variant<MakeSlot, AdvanceSlot, SlotIsReady, LeaveSlot>;

// The first byte that a reconnection needs of the server: stored WAL is compared before it is
// continued, from the start of a segment on.
Lsn needed_from(const StoredPosition& stored);

// A slot is moved only on a server of the same system and timeline, only forward, and never beyond
// needed_from() or what that server had replayed: WAL that a promotion from there continues is
// kept. One that somebody uses is left alone; one that begins behind what is stored is not ready.
StandbyStep next_step(const StoredPosition& stored, const wal::StandbyFacts& standby);

}  // namespace walvault::agent
