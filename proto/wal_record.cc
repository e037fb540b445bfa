#include "proto/wal_record.h"

#include <algorithm>

namespace walvault {
namespace {

constexpr std::uint8_t kBlockIdMax = 32;
constexpr std::uint8_t kMainDataShort = 255;
constexpr std::uint8_t kMainDataLong = 254;
constexpr std::uint8_t kReplicationOrigin = 253;
constexpr std::uint8_t kTopLevelXid = 252;

constexpr std::uint8_t kBlockHasImage = 0x10;
constexpr std::uint8_t kBlockSameFile = 0x80;
constexpr std::uint8_t kImageHasHole = 0x01;

struct BlockReference {
    RelationFile file;
    bool same_file = false;
    std::uint64_t data_bytes = 0;  // image and data
};

BlockReference read_block_reference(const ServerVersion& version, ByteReader& reader) {
    BlockReference block;
    const auto flags = reader.le<std::uint8_t>();
    block.data_bytes = reader.le<std::uint16_t>();
    if (flags & kBlockHasImage) {
        block.data_bytes += reader.le<std::uint16_t>();
        reader.le<std::uint16_t>();  // hole offset
        const auto image = reader.le<std::uint8_t>();
        const bool compressed = (image & version.compressed_image_flags) != 0;
        if (compressed && (image & kImageHasHole)) reader.le<std::uint16_t>();
    }
    block.same_file = (flags & kBlockSameFile) != 0;
    if (!block.same_file) {
        block.file.tablespace = reader.le<std::uint32_t>();
        block.file.database = reader.le<std::uint32_t>();
        block.file.relation = reader.le<std::uint32_t>();
    }
    reader.le<std::uint32_t>();  // block number
    return block;
}

}  // namespace

std::size_t kept_body_bytes_max(const WalRecordHeader& header) {
    switch (header.rmgr) {
        case rmgr::kXlog:
            switch (header.operation()) {
                case xlog_info::kCheckpointShutdown:
                case xlog_info::kCheckpointOnline:
                case xlog_info::kBackupEnd:
                case xlog_info::kParameterChange:
                case xlog_info::kRestorePoint:
                case xlog_info::kEndOfRecovery:
                case xlog_info::kOverwriteContrecord:
                    return 4_KiB;
                default:
                    return 0;
            }
        case rmgr::kXact:
            return 16_MiB;
        case rmgr::kSmgr:
            return 4_KiB;
        case rmgr::kHeap:
            // Row changes need no more than the first block reference; TRUNCATE lists relations.
            return (header.info & 0x70) == 0x30 ? 64_KiB : 64;
        case rmgr::kHeap2:
            return (header.info & 0x70) == 0x50 ? 64_KiB : 0;
        default:
            return 0;
    }
}

bool first_block_file(const ServerVersion& version, ByteSpan body, RelationFile& file) {
    ByteReader reader(body);
    if (reader.le<std::uint8_t>() > kBlockIdMax) return false;
    BlockReference block = read_block_reference(version, reader);
    file = block.file;
    return reader.ok() && !block.same_file;
}

bool parse_record_body(const ServerVersion& version, ByteSpan body, std::uint64_t body_bytes,
                       WalRecordBody& out) {
    ByteReader reader(body);
    std::uint64_t data_bytes = 0;
    std::uint64_t main_bytes = 0;
    bool has_block = false;
    bool has_main = false;
    while (reader.ok() && !has_main && body_bytes - reader.position() > data_bytes) {
        const auto id = reader.le<std::uint8_t>();
        if (id == kMainDataShort || id == kMainDataLong) {
            main_bytes =
                id == kMainDataShort ? reader.le<std::uint8_t>() : reader.le<std::uint32_t>();
            data_bytes += main_bytes;
            has_main = true;
        } else if (id == kReplicationOrigin) {
            reader.le<std::uint16_t>();
        } else if (id == kTopLevelXid) {
            reader.le<std::uint32_t>();
        } else if (id <= kBlockIdMax) {
            BlockReference block = read_block_reference(version, reader);
            if (!has_block && block.same_file) return false;
            if (!has_block) out.first_file = block.file;
            has_block = true;
            data_bytes += block.data_bytes;
        } else {
            return false;
        }
    }
    if (!reader.ok() || body_bytes - reader.position() != data_bytes) return false;
    const std::uint64_t main_start = body_bytes - main_bytes;
    out.main_data = body.subspan(std::min<std::uint64_t>(main_start, body.size()));
    return true;
}

}  // namespace walvault
