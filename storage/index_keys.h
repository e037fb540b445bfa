// Keys of the index that more than one of its files makes.
#pragma once

#include <string>

#include "proto/repository.pb.h"
#include "storage/repository_files.h"

namespace walvault::storage::index_keys {

// Keys end in big-endian numbers, so that RocksDB's byte order is the order of positions and times.
inline void append_number(std::string& key, std::uint64_t number) {
    std::array<std::byte, 8> bytes;
    store_be(bytes.data(), number);
    key += as_text(bytes);
}
// Signed times moved up by 2^63 to sort.
inline void append_time(std::string& key, std::int64_t micros) {
    append_number(key, static_cast<std::uint64_t>(micros) ^ (1ull << 63));
}
inline std::string wal_key(const std::string& history, std::uint64_t start) {
    std::string key = history;
    append_number(key, start);
    return key;
}
inline std::string clock_key(const std::string& history, std::int64_t largest,
                             std::uint64_t start) {
    std::string key = history;
    append_time(key, largest);
    append_number(key, start);
    return key;
}
inline std::string mark_key(const std::string& history, const pb::MarkEntry& mark) {
    std::string key = wal_key(history, mark.start_lsn());
    key += static_cast<char>(mark.kind());
    return key;
}
// The ledger entry by which a pack of a base backup came; gone with the pack.
inline std::string entered_key(const std::string& file_id) { return "entered/" + file_id; }
inline std::string numbered_key(const std::string& prefix, std::uint64_t number) {
    std::string key = prefix;
    append_number(key, number);
    return key;
}

// The value of a chunk: where it lies.
inline std::string encode_place(const Id16& file_id, const pb::FrameEntry& frame) {
    ByteBuffer bytes;
    append(bytes, file_id);
    append_le<std::uint32_t>(bytes, frame.frame_number());
    append_le<std::uint64_t>(bytes, frame.offset());
    append_le<std::uint32_t>(bytes, frame.stored_bytes());
    append_le<std::uint32_t>(bytes, frame.plain_bytes());
    return std::string(as_text(bytes));
}

}  // namespace walvault::storage::index_keys
