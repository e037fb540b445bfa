#include "proto/pg_control.h"

#include <string>

#include "base/crc32c.h"
#include "proto/server_version.h"

namespace walvault {
namespace {

// ControlFileData on 64-bit machines. What is read here lies at the same offsets in every version
// that is known; 18 has one field more between it and the CRC.
Result<std::size_t> crc_offset(unsigned control_version) {
    std::string known;
    for (const ServerVersion& version : known_server_versions()) {
        if (version.control_version == control_version) return version.control_crc_offset;
        const std::string number = std::to_string(version.control_version);
        if (known.ends_with(number)) continue;
        known += (known.empty() ? "" : ", ") + number;
    }
    return fail(Errc::unsupported, "pg_control has version " + std::to_string(control_version) +
                                       ", this walvault knows " + known);
}

tl::unexpected<Error> too_short(std::size_t bytes, std::size_t needed) {
    return fail(Errc::corrupt, "pg_control has " + std::to_string(bytes) +
                                   " bytes, fewer than the " + std::to_string(needed) +
                                   " of its content");
}

}  // namespace

Result<PgControl> parse_pg_control(ByteSpan bytes) {
    constexpr std::size_t kVersionEnd = 12;
    if (bytes.size() < kVersionEnd) return too_short(bytes.size(), kVersionEnd);
    const std::byte* at = bytes.data();
    PgControl control;
    control.control_version = load_le<std::uint32_t>(at + 8);
    // Before the CRC: another version has it in another place.
    WV_TRY(const std::size_t crc_at, crc_offset(control.control_version));
    if (bytes.size() < crc_at + 4) return too_short(bytes.size(), crc_at + 4);
    const std::uint32_t computed = crc32c(bytes.first(crc_at));
    const auto stored = load_le<std::uint32_t>(at + crc_at);
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
