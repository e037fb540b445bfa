// ServerVersion: what differs between the PostgreSQL majors that this build knows, in one table.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace walvault {

struct ServerVersion {
    unsigned major = 0;

    // WAL
    std::uint16_t wal_page_magic = 0;
    // Bits of a page image's info byte: if one is set and the image has a hole, the hole's length
    // follows.
    std::uint8_t compressed_image_flags = 0;
    // Resource managers of extensions, from 128 on.
    bool has_custom_rmgrs = false;
    // One entry of the list of dropped statistics in a commit record; 0: there is no such list.
    unsigned dropped_statistics_bytes = 0;

    // global/pg_control
    unsigned control_version = 0;
    unsigned control_crc_offset = 0;

    // BASE_BACKUP
    bool has_backup_messages = false;  // one copy with typed messages; else a copy for each archive
    unsigned manifest_version = 0;     // from 2 on it names the system

    bool has_read_slot_command = false;  // READ_REPLICATION_SLOT

    // Logical decoding. 2: large transactions are streamed; 3: two-phase; 4: aborts say where and
    // when, and changes can be told by their origin.
    unsigned pgoutput_protocol = 0;
};

// In ascending order of the majors.
std::span<const ServerVersion> known_server_versions();

// "14, 15, 16, 17 and 18"
std::string known_majors_text();

// Errors: unsupported for every other major; `what` begins the message: "the server".
Result<const ServerVersion*> find_server_version(unsigned major, const std::string& what);

// 150020 -> 15
inline constexpr unsigned server_major_of(unsigned server_version_num) {
    return server_version_num / 10'000;
}

}  // namespace walvault
