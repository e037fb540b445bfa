#include "proto/lsn.h"

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// What parses prints to text that parses to the same.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto lsn = parse_lsn(as_text(fuzz_input(data, size)));
    if (lsn) WV_ASSERT(parse_lsn(to_string(*lsn)).value() == *lsn);
    return 0;
}
