// Integers of one to ten bytes: seven bits each, the lowest first, the eighth says that more
// follow.
#pragma once

#include "base/bytes.h"

namespace walvault {

inline constexpr std::size_t kVarintBytesMax = 10;

inline void append_varint(ByteBuffer& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        out.push_back(static_cast<std::byte>(value | 0x80));
    out.push_back(static_cast<std::byte>(value));
}

constexpr std::size_t varint_bytes(std::uint64_t value) {
    return static_cast<std::size_t>(std::bit_width(value | 1) + 6) / 7;
}

// Small numbers of either sign as small ones without: 0, -1, 1, -2 are 0, 1, 2, 3. Of a difference
// that wraps around too.
constexpr std::uint64_t zigzag(std::uint64_t value) { return (value << 1) ^ (0 - (value >> 63)); }
constexpr std::uint64_t unzigzag(std::uint64_t value) { return (value >> 1) ^ (0 - (value & 1)); }

// Reads them one by one. False where `bytes` end inside of one, or one has more than 64 bits.
class VarintReader {
public:
    explicit VarintReader(ByteSpan bytes = {}) : at_(bytes.data()), end_(at_ + bytes.size()) {}
    bool next(std::uint64_t& value) {
        if (at_ == end_) return false;
        value = static_cast<std::uint64_t>(*at_++);
        return value < 0x80 || next_of_more(value);
    }
    // A byte that stands between them.
    bool byte(std::uint8_t& value) {
        if (at_ == end_) return false;
        value = static_cast<std::uint8_t>(*at_++);
        return true;
    }
    bool at_end() const { return at_ == end_; }
    // What was not read yet.
    ByteSpan rest() const { return {at_, end_}; }

private:
    bool next_of_more(std::uint64_t& value) {
        value &= 0x7f;
        for (unsigned shift = 7; at_ != end_ && shift < 64; shift += 7) {
            const auto byte = static_cast<std::uint64_t>(*at_++);
            if (shift == 63 && byte > 1) return false;
            value |= (byte & 0x7f) << shift;
            if (byte < 0x80) return true;
        }
        return false;
    }
    const std::byte* at_;
    const std::byte* end_;
};

}  // namespace walvault
