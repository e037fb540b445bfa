#include "proto/pg_control.h"

#include "base/crc32c.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// The CRC is made right in a second attempt: what is behind it is to be reached too.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteSpan input = fuzz_input(data, size);
    auto parsed = parse_pg_control(input);
    if (parsed) WV_ASSERT(parsed->control_version >= 1300 && parsed->control_version <= 1800);
    if (input.size() < 296) return 0;
    ByteBuffer repaired(input.begin(), input.end());
    const std::size_t crc_at = load_le<std::uint32_t>(input.data() + 8) == 1800 ? 292 : 288;
    store_le(repaired.data() + crc_at, crc32c(input.first(crc_at)));
    auto again = parse_pg_control(repaired);
    WV_ASSERT(again || again.error().code == Errc::unsupported);
    return 0;
}
