// How far two runs of bytes are the same.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace walvault {

// In bytes, at most the length of the shorter one. Runs that are the same, as nearly all are, are
// compared at the speed of memcmp().
inline std::size_t shared_prefix_bytes(ByteSpan one, ByteSpan other) {
    const std::size_t bytes = std::min(one.size(), other.size());
    if (bytes == 0 || std::memcmp(one.data(), other.data(), bytes) == 0) return bytes;
    const auto [differs, there] = std::ranges::mismatch(one.first(bytes), other.first(bytes));
    return static_cast<std::size_t>(differs - one.begin());
}

}  // namespace walvault
