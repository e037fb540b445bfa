// What every fuzz target shares: the entry point's declaration and the view of its input.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace walvault {

inline ByteSpan fuzz_input(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const std::byte*>(data), size};
}
// Takes the first byte off as a number: how large the pieces are that a streaming parser is fed.
inline std::size_t take_piece_bytes(ByteSpan& input) {
    if (input.empty()) return 1;
    const auto first = std::to_integer<std::size_t>(input[0]);
    input = input.subspan(1);
    return first == 0 ? 65'536 : first;
}

}  // namespace walvault
