#include "proto/pg_control.h"

#include "base/crc32c.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// The CRC is made right in a second attempt: what is behind it is to be reached too.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteSpan input = fuzz_input(data, size);
    auto parsed = parse_pg_control(input);
    if (parsed) WV_ASSERT(parsed->control_version == 1300);
    if (input.size() < 292) return 0;
    ByteBuffer repaired(input.begin(), input.end());
    store_le(repaired.data() + 288, crc32c(input.first(288)));
    auto again = parse_pg_control(repaired);
    WV_ASSERT(again || again.error().code == Errc::unsupported);
    return 0;
}
