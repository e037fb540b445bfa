#include "proto/server_version.h"

#include <array>

namespace walvault {
namespace {

// Block images: 14 has one bit for "compressed"; from 15 on there is one for each method.
constexpr std::uint8_t kOneMethod = 0x02;
constexpr std::uint8_t kPglzLz4Zstd = 0x04 | 0x08 | 0x10;

// What is not here is the same in all of them: page and record headers, block references, the
// resource managers and operations that are read, and the fields of their records up to the last
// one that is read. CHECKPOINT and END_OF_RECOVERY got wal_level in 17, in padding and at the end.
constexpr std::array kVersions{
    ServerVersion{.major = 14,
                  .wal_page_magic = 0xD10D,
                  .compressed_image_flags = kOneMethod,
                  .has_custom_rmgrs = false,
                  .dropped_statistics_bytes = 0,
                  .control_version = 1300,
                  .control_crc_offset = 288,
                  .has_backup_messages = false,
                  .manifest_version = 1,
                  .has_read_slot_command = false,
                  .pgoutput_protocol = 2},
    ServerVersion{.major = 15,
                  .wal_page_magic = 0xD110,
                  .compressed_image_flags = kPglzLz4Zstd,
                  .has_custom_rmgrs = true,
                  .dropped_statistics_bytes = 12,
                  .control_version = 1300,
                  .control_crc_offset = 288,
                  .has_backup_messages = true,
                  .manifest_version = 1,
                  .has_read_slot_command = true,
                  .pgoutput_protocol = 3},
    ServerVersion{.major = 16,
                  .wal_page_magic = 0xD113,
                  .compressed_image_flags = kPglzLz4Zstd,
                  .has_custom_rmgrs = true,
                  .dropped_statistics_bytes = 12,
                  .control_version = 1300,
                  .control_crc_offset = 288,
                  .has_backup_messages = true,
                  .manifest_version = 1,
                  .has_read_slot_command = true,
                  .pgoutput_protocol = 4},
    ServerVersion{.major = 17,
                  .wal_page_magic = 0xD116,
                  .compressed_image_flags = kPglzLz4Zstd,
                  .has_custom_rmgrs = true,
                  .dropped_statistics_bytes = 12,
                  .control_version = 1700,
                  .control_crc_offset = 288,
                  .has_backup_messages = true,
                  .manifest_version = 2,
                  .has_read_slot_command = true,
                  .pgoutput_protocol = 4},
    ServerVersion{.major = 18,
                  .wal_page_magic = 0xD118,
                  .compressed_image_flags = kPglzLz4Zstd,
                  .has_custom_rmgrs = true,
                  .dropped_statistics_bytes = 16,
                  .control_version = 1800,
                  .control_crc_offset = 292,
                  .has_backup_messages = true,
                  .manifest_version = 2,
                  .has_read_slot_command = true,
                  .pgoutput_protocol = 4},
};

}  // namespace

std::span<const ServerVersion> known_server_versions() { return kVersions; }

std::string known_majors_text() {
    std::string text;
    for (std::size_t i = 0; i < kVersions.size(); ++i) {
        if (i > 0) text += i + 1 < kVersions.size() ? ", " : " and ";
        text += std::to_string(kVersions[i].major);
    }
    return text;
}

Result<const ServerVersion*> find_server_version(unsigned major, const std::string& what) {
    for (const ServerVersion& version : kVersions)
        if (version.major == major) return &version;
    return fail(Errc::unsupported,
                what + " is PostgreSQL " + std::to_string(major) + "; this walvault knows " +
                    known_majors_text() + " and guesses at no other",
                major > kVersions.back().major
                    ? "use a walvault that knows PostgreSQL " + std::to_string(major)
                    : "upgrade the server to one of these majors");
}

}  // namespace walvault
