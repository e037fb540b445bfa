// Values that the tests of the storage room share.
#pragma once

#include <string>

#include "proto/frame_format.h"
#include "storage/keyring.h"

namespace walvault::storage {

template <std::size_t N>
std::array<std::byte, N> filled(unsigned char value) {
    std::array<std::byte, N> bytes;
    bytes.fill(std::byte{value});
    return bytes;
}
inline Id16 id16(unsigned char value) { return filled<16>(value); }

inline DataKey test_data_key(unsigned char value, pb::KeyPurpose purpose = pb::KEY_PURPOSE_WAL) {
    DataKey key;
    key.id = id16(value);
    key.purpose = purpose;
    key.secret = SecretBytes::copy_of(filled<32>(static_cast<unsigned char>(value + 1)));
    return key;
}

inline FileHeader test_wal_header() {
    FileHeader header;
    header.stream = StreamKind::wal;
    header.server_version_num = 150'020;
    header.timeline = 3;
    header.segment_bytes = 16_MiB;
    header.system_identifier = 7'123'456'789'012'345'678;
    header.start_lsn = Lsn{0x16'B374'D848};
    header.generation = 9;
    header.repository_id = id16(0x10);
    header.cluster_id = id16(0x20);
    header.history_id = id16(0x30);
    header.file_id = id16(0x40);
    return header;
}

inline FramePlace wal_place(std::uint32_t number, std::uint64_t start, std::uint64_t end) {
    FramePlace place;
    place.frame_number = number;
    place.start = start;
    place.end = end;
    return place;
}

// Bytes that zstd makes about three times smaller: numbered text lines.
inline ByteBuffer compressible_bytes(std::size_t size) {
    ByteBuffer bytes;
    for (std::uint64_t i = 1; bytes.size() < size; ++i)
        append(bytes,
               as_bytes("row " + std::to_string(i * 2'654'435'761 % 1'000'003) + " changed\n"));
    bytes.resize(size);
    return bytes;
}

}  // namespace walvault::storage
