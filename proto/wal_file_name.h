// Names of WAL segments and history files, for any segment size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "proto/lsn.h"

namespace walvault {

struct WalFileName {
    enum class Kind { segment, history, partial, backup_label } kind = Kind::segment;
    TimelineId timeline = 0;
    std::uint64_t segment_number = 0;  // zero for a history file

    Lsn start_lsn(std::uint64_t segment_bytes) const { return Lsn{segment_number * segment_bytes}; }
};

// "0000000100000005000000AA", with ".partial", "….00000028.backup", or "00000002.history".
// Errors: invalid_argument. `segment_bytes` is a power of two from 1 MiB to 1 GiB.
Result<WalFileName> parse_wal_file_name(std::string_view name, std::uint64_t segment_bytes);
std::string segment_file_name(TimelineId timeline, std::uint64_t segment_number, std::uint64_t segment_bytes);
std::string history_file_name(TimelineId timeline);

}  // namespace walvault
