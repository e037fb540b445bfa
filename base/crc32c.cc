#include "base/crc32c.h"

#include <array>
#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
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
// The state that `bytes` zeros turn 1 into, but for the 33 bits that shift() adds: the power of x,
// bits reversed.
constexpr std::uint32_t shift_by(std::size_t bytes) {
    std::uint32_t value = 0x80000000u;
    for (std::size_t bit = 33; bit < 8 * bytes; ++bit)
        value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
    return value;
}

// The state after as many zeros as `by` was made for.
__attribute__((target("sse4.2,pclmul"))) std::uint32_t shift(std::uint64_t state,
                                                             std::uint32_t by) {
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(state)),
                                                 _mm_cvtsi32_si128(static_cast<int>(by)), 0);
    return static_cast<std::uint32_t>(
        _mm_crc32_u64(0, static_cast<std::uint64_t>(_mm_cvtsi128_si64(product))));
}

// Three stretches at once: the instruction takes three cycles, and one can begin in each.
template <std::size_t kStretch>
__attribute__((target("sse4.2,pclmul"))) const std::byte* extend_by_three(std::uint64_t& state,
                                                                          const std::byte* at,
                                                                          const std::byte* end) {
    static_assert(kStretch % 8 == 0);
    static constexpr std::uint32_t kOne = shift_by(kStretch), kTwo = shift_by(2 * kStretch);
    while (static_cast<std::size_t>(end - at) >= 3 * kStretch) {
        std::uint64_t second = 0, third = 0;
        for (const std::byte* stop = at + kStretch; at != stop; at += 8) {
            state = _mm_crc32_u64(state, load_le<std::uint64_t>(at));
            second = _mm_crc32_u64(second, load_le<std::uint64_t>(at + kStretch));
            third = _mm_crc32_u64(third, load_le<std::uint64_t>(at + 2 * kStretch));
        }
        at += 2 * kStretch;
        state = shift(state, kTwo) ^ shift(second, kOne) ^ static_cast<std::uint32_t>(third);
    }
    return at;
}

__attribute__((target("sse4.2,pclmul"))) std::uint32_t extend_interleaved(std::uint32_t state,
                                                                          ByteSpan bytes) {
    const std::byte* at = bytes.data();
    const std::byte* end = at + bytes.size();
    std::uint64_t wide = state;
    at = extend_by_three<1024>(wide, at, end);
    at = extend_by_three<128>(wide, at, end);
    for (; end - at >= 8; at += 8)
        wide = _mm_crc32_u64(wide, load_le<std::uint64_t>(at));
    state = static_cast<std::uint32_t>(wide);
    for (; at != end; ++at)
        state = _mm_crc32_u8(state, std::to_integer<std::uint8_t>(*at));
    return state;
}

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
    static const bool can_shift = has_instruction && __builtin_cpu_supports("pclmul");
    if (can_shift) return extend_interleaved(state, bytes);
    if (has_instruction) return extend_sse42(state, bytes);
#endif
    return crc32c_extend_portable(state, bytes);
}

}  // namespace walvault
