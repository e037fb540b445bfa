// Byte buffers and bounded reading and writing of fixed-width integers.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/invariant.h"

namespace walvault {

using ByteSpan = std::span<const std::byte>;
using MutableByteSpan = std::span<std::byte>;
using ByteBuffer = std::vector<std::byte>;

constexpr std::uint64_t operator""_KiB(unsigned long long n) { return n << 10; }
constexpr std::uint64_t operator""_MiB(unsigned long long n) { return n << 20; }
constexpr std::uint64_t operator""_GiB(unsigned long long n) { return n << 30; }

inline ByteSpan as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteSpan bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline void append(ByteBuffer& out, ByteSpan bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
}

// Unaligned loads; the caller has checked that sizeof(T) bytes are there.
template <class T>
T load_le(const std::byte* from) {
    static_assert(std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T>
T load_be(const std::byte* from) {
    T value = load_le<T>(from);
    if constexpr (sizeof(T) == 2)
        return static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
    if constexpr (sizeof(T) == 4)
        return static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
    if constexpr (sizeof(T) == 8)
        return static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
    return value;
}
template <class T>
void store_le(std::byte* to, T value) {
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(to, &value, sizeof value);
}
template <class T>
void store_be(std::byte* to, T value) {
    if constexpr (sizeof(T) == 2)
        value = static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
    if constexpr (sizeof(T) == 4)
        value = static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
    if constexpr (sizeof(T) == 8)
        value = static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
    std::memcpy(to, &value, sizeof value);
}
template <class T>
void append_le(ByteBuffer& out, T value) {
    std::array<std::byte, sizeof(T)> bytes;
    store_le(bytes.data(), value);
    append(out, bytes);
}
template <class T>
void append_be(ByteBuffer& out, T value) {
    std::array<std::byte, sizeof(T)> bytes;
    store_be(bytes.data(), value);
    append(out, bytes);
}

// A cursor over bytes from outside. A read past the end returns zero and makes ok() false for good.
class ByteReader {
public:
    explicit ByteReader(ByteSpan bytes) : bytes_(bytes) {}

    template <class T>
    T le() {
        if (!take(sizeof(T))) return T{};
        return load_le<T>(bytes_.data() + at_ - sizeof(T));
    }
    template <class T>
    T be() {
        if (!take(sizeof(T))) return T{};
        return load_be<T>(bytes_.data() + at_ - sizeof(T));
    }
    ByteSpan bytes(std::size_t count) {
        if (!take(count)) return {};
        return bytes_.subspan(at_ - count, count);
    }
    bool ok() const { return ok_; }
    std::size_t remaining() const { return bytes_.size() - at_; }
    std::size_t position() const { return at_; }

private:
    bool take(std::size_t count) {
        if (!ok_ || count > bytes_.size() - at_) return ok_ = false;
        at_ += count;
        return true;
    }
    ByteSpan bytes_;
    std::size_t at_ = 0;
    bool ok_ = true;
};

// 16 and 32 bytes that name things.
using Id16 = std::array<std::byte, 16>;
using Id32 = std::array<std::byte, 32>;

std::string to_hex(ByteSpan bytes);
// False unless `text` is exactly 2 * out.size() hexadecimal digits; `out` is then undefined.
[[nodiscard]] bool from_hex(std::string_view text, MutableByteSpan out);

}  // namespace walvault
