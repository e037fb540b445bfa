// The fields of global/pg_control that a restore must know, version-checked and CRC-checked.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "proto/lsn.h"

namespace walvault {

struct PgControl {
    std::uint64_t system_identifier = 0;
    unsigned control_version = 0;
    unsigned catalog_version = 0;
    Lsn checkpoint_lsn;
    TimelineId timeline = 0;
    unsigned max_connections = 0;
    unsigned max_worker_processes = 0;
    unsigned max_wal_senders = 0;
    unsigned max_prepared_transactions = 0;
    unsigned max_locks_per_transaction = 0;
    unsigned wal_segment_bytes = 0;
    unsigned data_checksum_version = 0;
};
// Errors: corrupt (length, CRC), unsupported (control version of a major this build does not know).
Result<PgControl> parse_pg_control(ByteSpan bytes);

}  // namespace walvault
