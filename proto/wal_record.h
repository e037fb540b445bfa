// The layout of one WAL record (PostgreSQL's xlogrecord.h): header, block references, main data.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "proto/server_version.h"
#include "proto/wal_decoder.h"

namespace walvault {

inline constexpr std::uint32_t kWalRecordHeaderBytes = 24;
inline constexpr std::uint32_t kWalRecordBytesMax = 1U << 30;

// Resource managers whose records are read here, and the highest that PostgreSQL 14 to 18 have
// themselves.
namespace rmgr {
inline constexpr std::uint8_t kXlog = 0;
inline constexpr std::uint8_t kXact = 1;
inline constexpr std::uint8_t kSmgr = 2;
inline constexpr std::uint8_t kHeap2 = 9;
inline constexpr std::uint8_t kHeap = 10;
inline constexpr std::uint8_t kLastBuiltIn = 21;
inline constexpr std::uint8_t kFirstCustom = 128;
}  // namespace rmgr

namespace xlog_info {
inline constexpr std::uint8_t kCheckpointShutdown = 0x00;
inline constexpr std::uint8_t kCheckpointOnline = 0x10;
inline constexpr std::uint8_t kSwitch = 0x40;
inline constexpr std::uint8_t kBackupEnd = 0x50;
inline constexpr std::uint8_t kParameterChange = 0x60;
inline constexpr std::uint8_t kRestorePoint = 0x70;
inline constexpr std::uint8_t kEndOfRecovery = 0x90;
inline constexpr std::uint8_t kOverwriteContrecord = 0xD0;
}  // namespace xlog_info

struct WalRecordHeader {
    std::uint32_t total_bytes = 0;
    Xid xid = 0;
    Lsn previous_lsn;
    std::uint8_t info = 0;
    std::uint8_t rmgr = 0;
    std::uint32_t crc = 0;

    // The low four bits of `info` belong to the WAL machinery, not to the resource manager.
    std::uint8_t operation() const { return info & 0xF0; }
    bool is_switch() const { return rmgr == rmgr::kXlog && operation() == xlog_info::kSwitch; }
};
// `from` holds kWalRecordHeaderBytes.
inline WalRecordHeader load_record_header(const std::byte* from) {
    return {.total_bytes = load_le<std::uint32_t>(from),
            .xid = load_le<std::uint32_t>(from + 4),
            .previous_lsn = Lsn{load_le<std::uint64_t>(from + 8)},
            .info = load_le<std::uint8_t>(from + 16),
            .rmgr = load_le<std::uint8_t>(from + 17),
            .crc = load_le<std::uint32_t>(from + 20)};
}

// How many bytes of a record's body (what follows its header) are worth keeping until it is
// complete.
std::size_t kept_body_bytes_max(const WalRecordHeader& header);

struct WalRecordBody {
    ByteSpan main_data;       // what there is of it when the body was not kept whole
    RelationFile first_file;  // of the first block reference; zeros without one
};
// `body` may be the first part of a body of `body_bytes`. False if the headers in it do not add up
// or were not kept whole.
[[nodiscard]] bool parse_record_body(const ServerVersion& version, ByteSpan body,
                                     std::uint64_t body_bytes, WalRecordBody& out);

// The first block reference's file alone: all that counting rows needs. False without one.
[[nodiscard]] bool first_block_file(const ServerVersion& version, ByteSpan body,
                                    RelationFile& file);

}  // namespace walvault
