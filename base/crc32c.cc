#include "base/crc32c.h"

#include <array>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace walvault {
namespace {

constexpr std::array<std::array<std::uint32_t, 256>, 8> make_tables() {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit)
            value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
        tables[0][i] = value;
    }
    for (std::uint32_t i = 0; i < 256; ++i)
        for (std::size_t t = 1; t < 8; ++t)
            tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xFF];
    return tables;
}
constexpr auto kTables = make_tables();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t extend_sse42(std::uint32_t state, ByteSpan bytes) {
    const std::byte* at = bytes.data();
    const std::byte* end = at + bytes.size();
    std::uint64_t wide = state;
    for (; end - at >= 8; at += 8)
        wide = _mm_crc32_u64(wide, load_le<std::uint64_t>(at));
    state = static_cast<std::uint32_t>(wide);
    for (; at != end; ++at)
        state = _mm_crc32_u8(state, std::to_integer<std::uint8_t>(*at));
    return state;
}
#endif

}  // namespace

std::uint32_t crc32c_extend_portable(std::uint32_t state, ByteSpan bytes) {
    const std::byte* at = bytes.data();
    const std::byte* end = at + bytes.size();
    for (; end - at >= 8; at += 8) {
        std::uint64_t word = load_le<std::uint64_t>(at) ^ state;
        state = 0;
        for (std::size_t t = 0; t < 8; ++t)
            state ^= kTables[7 - t][(word >> (8 * t)) & 0xFF];
    }
    for (; at != end; ++at)
        state = (state >> 8) ^ kTables[0][(state ^ std::to_integer<std::uint32_t>(*at)) & 0xFF];
    return state;
}

std::uint32_t crc32c_extend(std::uint32_t state, ByteSpan bytes) {
#if defined(__x86_64__)
    static const bool has_instruction = __builtin_cpu_supports("sse4.2");
    if (has_instruction) return extend_sse42(state, bytes);
#endif
    return crc32c_extend_portable(state, bytes);
}

}  // namespace walvault
