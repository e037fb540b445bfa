#include "agent/standby_slot.h"

#include <algorithm>

#include "agent/attachment.h"

namespace walvault::agent {

Lsn needed_from(const StoredPosition& stored) {
    const Lsn segment = stored.acknowledged_lsn.round_down(stored.segment_bytes);
    const bool enough = stored.acknowledged_lsn - segment >= kProofBytes;
    if (enough || segment.value < stored.segment_bytes) return segment;
    return Lsn{segment.value - stored.segment_bytes};
}

StandbyStep next_step(const StoredPosition& stored, const wal::StandbyFacts& standby) {
    if (standby.system_identifier != stored.system_identifier)
        return LeaveSlot{"it belongs to another cluster", false};
    if (!standby.in_recovery && !stored.from_standby)
        return LeaveSlot{"it is a primary, too", true};
    if (!standby.slot) return MakeSlot{};
    const wal::StandbyFacts::Slot& slot = *standby.slot;
    if (!slot.physical) return LeaveSlot{"the slot of this name is a logical one", false};
    if (slot.active) return LeaveSlot{"somebody streams from the slot", false};
    if (slot.lost || !slot.restart_lsn) return MakeSlot{.renew = true};
    if (standby.timeline != stored.timeline)
        return LeaveSlot{"it is on timeline " + std::to_string(standby.timeline) +
                             ", what is streamed on " + std::to_string(stored.timeline),
                         false};
    // As where it was made while the agent was far behind.
    if (*slot.restart_lsn > stored.acknowledged_lsn)
        return LeaveSlot{"its slot holds WAL from " + to_string(*slot.restart_lsn) +
                             " on only, and what is stored ends at " +
                             to_string(stored.acknowledged_lsn),
                         false};
    const Lsn to = std::min(needed_from(stored), standby.replayed_lsn);
    if (to > *slot.restart_lsn) return AdvanceSlot{to};
    return SlotIsReady{};
}

}  // namespace walvault::agent
