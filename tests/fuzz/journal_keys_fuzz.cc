#include "proto/journal_keys.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// A block that is read has its places in order, and is written again as something that says the
// same.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto places = decode_key_block(fuzz_input(data, size));
    if (!places) return 0;
    for (std::size_t i = 1; i < places->size(); ++i)
        WV_ASSERT((*places)[i - 1] < (*places)[i]);
    WV_ASSERT(decode_key_block(encode_key_block(*places).plain).value() == *places);
    return 0;
}
