#include "proto/timeline_history.h"

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto switches = parse_timeline_history(as_text(fuzz_input(data, size)), 100);
    if (!switches) return 0;
    for (std::size_t i = 1; i < switches->size(); ++i) {
        WV_ASSERT((*switches)[i].timeline > (*switches)[i - 1].timeline);
        WV_ASSERT((*switches)[i].end_lsn >= (*switches)[i - 1].end_lsn);
    }
    return 0;
}
