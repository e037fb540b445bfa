// CRC-32C (Castagnoli, reflected 0x82F63B78), as PostgreSQL's WAL and manifests use it.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace walvault {

// Incremental: start with kCrc32cInit, finish with crc32c_finish. Uses the SSE 4.2 instruction
// where the processor has it.
inline constexpr std::uint32_t kCrc32cInit = 0xFFFFFFFF;
std::uint32_t crc32c_extend(std::uint32_t state, ByteSpan bytes);
inline std::uint32_t crc32c_finish(std::uint32_t state) { return ~state; }
inline std::uint32_t crc32c(ByteSpan bytes) {
    return crc32c_finish(crc32c_extend(kCrc32cInit, bytes));
}

// The table-driven form, for processors without the instruction and for tests of the other.
std::uint32_t crc32c_extend_portable(std::uint32_t state, ByteSpan bytes);

}  // namespace walvault
