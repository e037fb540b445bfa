// The size of a WAL segment where initdb is told of no other.
#pragma once

#include <cstdint>

namespace walvault {

inline constexpr std::uint64_t kSegmentBytes = 16 << 20;

}  // namespace walvault
