// What the golden files of format version 1 hold: written once by make_golden, checked by golden_test.
#pragma once

#include <array>
#include <string_view>

#include "tests/unit/storage/fixtures.h"

namespace walvault::storage::golden {

inline const Id16 kRepositoryId = id16(0xA1);
inline const std::array<std::string_view, 3> kClusters = {"main", "second", "third"};

inline FileHeader wal_header() {
    FileHeader header = test_wal_header();
    header.repository_id = kRepositoryId;
    header.start_lsn = Lsn{0x1'0000'0000};
    return header;
}

// Frame 0 is compressed, frame 1 quiet and empty, frame 2 stored as it is.
inline ByteBuffer plain_of(std::uint32_t frame_number) {
    if (frame_number == 0) return compressible_bytes(2'000);
    if (frame_number == 1) return {};
    ByteBuffer bytes(100);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 167 + 13);
    return bytes;
}
inline FramePlace place_of(std::uint32_t frame_number) {
    constexpr std::array<std::uint64_t, 4> kEdges = {0, 2'000, 2'000, 2'100};
    std::uint64_t start = wal_header().start_lsn.value;
    FramePlace place =
        wal_place(frame_number, start + kEdges[frame_number], start + kEdges[frame_number + 1]);
    if (frame_number == 1) place.kind = FrameKind::quiet;
    place.synced_frames = frame_number;
    return place;
}

}  // namespace walvault::storage::golden
