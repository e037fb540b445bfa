// Commands of the physical replication protocol, as functions over a Connection.
#pragma once

#include <optional>
#include <string>

#include "proto/lsn.h"
#include "proto/server_version.h"
#include "wal/connection.h"

namespace walvault::wal {

// What is known of the server's major; asks it nothing. Errors: unsupported.
Result<const ServerVersion*> server_version_of(const Connection& connection);

struct SystemIdentity {
    std::uint64_t system_identifier = 0;
    TimelineId timeline = 0;
    Lsn flushed_lsn;  // the server's
};
Task<Result<SystemIdentity>> identify_system(Connection& connection);

// SHOW on a replication connection. Sizes come with a unit ("64MB").
Task<Result<std::string>> show(Connection& connection, std::string setting);
// Errors: unsupported unless a power of two from 1 MiB to 1 GiB.
Task<Result<std::uint64_t>> wal_segment_bytes(Connection& connection);

struct SlotPosition {
    std::optional<Lsn> restart_lsn;   // nothing: reserves no WAL
    TimelineId restart_timeline = 0;  // 0: not told
};
// READ_REPLICATION_SLOT, which exists from 15 on. nullopt when there is no such slot.
Task<Result<std::optional<SlotPosition>>> read_slot(Connection& connection, std::string slot);
// The same from pg_replication_slots, on an ordinary connection; the view does not tell the
// timeline.
Task<Result<std::optional<SlotPosition>>> read_slot_in_view(Connection& sql, std::string slot);
// CREATE_REPLICATION_SLOT … PHYSICAL RESERVE_WAL. Errors: refused if it exists (another made it).
Task<Result<>> create_physical_slot(Connection& connection, std::string slot);
Task<Result<>> drop_slot(Connection& connection, std::string slot);
// Content of a history file; timeline >= 2.
Task<Result<std::string>> timeline_history(Connection& connection, TimelineId timeline);

// `slot` may be empty: the stream uses none.
// nothing: streaming began. Otherwise the timeline ended exactly at `start` and what follows it.
struct TimelineEnd {
    TimelineId next_timeline = 0;
    Lsn next_start_lsn;
};
Task<Result<std::optional<TimelineEnd>>> start_replication(Connection& connection, std::string slot,
                                                           Lsn start, TimelineId timeline);

}  // namespace walvault::wal
