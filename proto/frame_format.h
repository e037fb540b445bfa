// The fixed layouts of repository files: file header, frame header, trailer, and the additional data
// that binds a frame to its place. Grammar and a worked example: docs/formats.md.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "proto/lsn.h"

namespace walvault {

inline constexpr std::uint8_t kFormatVersion = 1;

enum class StreamKind : std::uint8_t { wal = 1, base = 2, manifest = 3, journal = 4 };
enum class Suite : std::uint8_t { xchacha20_poly1305 = 1 };
enum class Codec : std::uint8_t { stored = 0, zstd = 1 };
// What a frame of a file is: the stream's own content, a proof that nothing happened, the footer, or
// (journal) where keys occur.
enum class FrameKind : std::uint8_t { content = 1, quiet = 2, footer = 3, keys = 4 };

// At the start of every tail and pack. Plain, and authenticated by `tag` under the file's own key.
struct FileHeader {
    StreamKind stream = StreamKind::wal;
    Suite suite = Suite::xchacha20_poly1305;
    std::uint32_t server_version_num = 0;
    TimelineId timeline = 0;
    std::uint64_t segment_bytes = 0;
    std::uint64_t system_identifier = 0;
    Lsn start_lsn;
    std::uint64_t generation = 0;
    Id16 repository_id{};
    Id16 cluster_id{};   // keyed hash of the cluster's name
    Id16 history_id{};   // zeros where the stream has none
    Id16 file_id{};      // random, names the file's key
    Id16 key_id{};       // data key it is derived from
    Id16 tag{};
};
inline constexpr std::size_t kFileHeaderBytes = 160;
// The first kFileHeaderBytes - 16 bytes are what `tag` authenticates.
void encode_file_header(const FileHeader& header, std::span<std::byte, kFileHeaderBytes> out);
// Errors: corrupt (magic, length, unknown stream), unsupported (format version, suite).
Result<FileHeader> decode_file_header(ByteSpan bytes);

struct FrameHeader {
    FrameKind kind = FrameKind::content;
    Codec codec = Codec::zstd;
    std::uint32_t frame_number = 0;
    std::uint32_t plain_bytes = 0;
    std::uint32_t sealed_bytes = 0;  // ciphertext with its 16-byte tag, what follows this header
    std::uint32_t synced_frames = 0; // frames of this file known to be synced when this one was sealed
    std::array<std::byte, 24> nonce{};
    Id16 commitment{};  // keyed hash of the nonce: tells the key before the tag is tried
};
inline constexpr std::size_t kFrameHeaderBytes = 64;
inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::uint32_t kFramePlainBytesMax = 8 << 20;
void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out);
// Errors: corrupt (magic, length above the cap, unknown kind or codec).
Result<FrameHeader> decode_frame_header(ByteSpan bytes);

// Where a frame stands. For WAL and quiet frames `start` and `end` are LSNs; of a journal's both are
// its end before the frame, since how far it reaches only its content says; for manifest frames,
// key blocks and footers both are zero; for base frames too, and the content id names the plain
// bytes.
struct FramePlace {
    FrameKind kind = FrameKind::content;
    std::uint32_t frame_number = 0;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    Id32 content_id{};
    bool final = false;  // the footer: nothing follows
    // Not of the place: written into the header and authenticated when sealing, taken from the header
    // when unsealing. A frame that is missing although a later one counts it as synced was destroyed,
    // not torn by a crash.
    std::uint32_t synced_frames = 0;
};
// Fixed width, everything that identifies the place and the coding of the bytes.
inline constexpr std::size_t kAdditionalDataBytes = 208;
void encode_additional_data(const FileHeader& file, const FramePlace& place, Codec codec,
                            std::uint32_t plain_bytes,
                            std::span<std::byte, kAdditionalDataBytes> out);

// At the end of a pack; absent from a tail.
struct PackTrailer {
    std::uint64_t footer_offset = 0;
    std::uint32_t footer_bytes = 0;  // header and ciphertext of the footer frame
};
inline constexpr std::size_t kPackTrailerBytes = 24;
void encode_pack_trailer(const PackTrailer& trailer, std::span<std::byte, kPackTrailerBytes> out);
Result<PackTrailer> decode_pack_trailer(ByteSpan bytes);

}  // namespace walvault
