#include "proto/pg_control.h"

#include <string>

#include "base/crc32c.h"

namespace walvault {
namespace {

// ControlFileData of PostgreSQL 13 to 16, which share control version 1300, on 64-bit machines.
constexpr unsigned kControlVersion = 1300;
constexpr std::size_t kCrcOffset = 288;
constexpr std::size_t kControlBytes = kCrcOffset + 4;

}  // namespace

Result<PgControl> parse_pg_control(ByteSpan bytes) {
    if (bytes.size() < kControlBytes)
        return fail(Errc::corrupt, "pg_control has " + std::to_string(bytes.size()) +
                                       " bytes, fewer than the " + std::to_string(kControlBytes) +
                                       " of its content");
    const std::byte* at = bytes.data();
    PgControl control;
    control.control_version = load_le<std::uint32_t>(at + 8);
    // Before the CRC: another version has it in another place.
    if (control.control_version != kControlVersion)
        return fail(Errc::unsupported, "pg_control has version " +
                                           std::to_string(control.control_version) +
                                           ", this build knows " + std::to_string(kControlVersion));
    const std::uint32_t computed = crc32c(bytes.first(kCrcOffset));
    const auto stored = load_le<std::uint32_t>(at + kCrcOffset);
    if (computed != stored)
        return fail(Errc::corrupt, "pg_control has the CRC " + std::to_string(computed) +
                                       " instead of " + std::to_string(stored));
    control.system_identifier = load_le<std::uint64_t>(at);
    control.catalog_version = load_le<std::uint32_t>(at + 12);
    control.checkpoint_lsn = Lsn{load_le<std::uint64_t>(at + 32)};
    control.timeline = load_le<std::uint32_t>(at + 48);
    control.max_connections = load_le<std::uint32_t>(at + 180);
    control.max_worker_processes = load_le<std::uint32_t>(at + 184);
    control.max_wal_senders = load_le<std::uint32_t>(at + 188);
    control.max_prepared_transactions = load_le<std::uint32_t>(at + 192);
    control.max_locks_per_transaction = load_le<std::uint32_t>(at + 196);
    control.wal_segment_bytes = load_le<std::uint32_t>(at + 228);
    control.data_checksum_version = load_le<std::uint32_t>(at + 252);
    return control;
}

}  // namespace walvault
