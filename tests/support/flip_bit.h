// A bit of a file, flipped: sealed bytes are any, and one written over them may be the one there.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace walvault {

// One of the byte at `offset`, which the file has.
inline void flip_bit(const std::string& path, std::uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 0x10));
}

}  // namespace walvault
