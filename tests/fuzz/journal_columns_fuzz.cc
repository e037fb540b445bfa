#include "proto/frame_format.h"
#include "proto/journal_columns.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// Columns of any bytes give an error or a bounded batch; a batch comes back as it was.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const ByteSpan input = fuzz_input(data, size);
    ByteBuffer batch;
    const bool is_read = from_columns(input, batch).has_value();
    WV_ASSERT(!is_read || (is_columns(input) && batch.size() <= kFramePlainBytesMax));
    const RowSought sought{16'400, SoughtValue("1")};
    ByteBuffer found;
    const bool is_found = from_columns(input, found, &sought).has_value();
    WV_ASSERT(found.size() <= kFramePlainBytesMax && (is_found || !is_read));
    auto columns = to_columns(is_read ? ByteSpan(batch) : input);
    if (!columns || !*columns) return 0;
    ByteBuffer again;
    WV_ASSERT(from_columns((*columns)->plain, again));
    WV_ASSERT(std::ranges::equal(again, is_read ? ByteSpan(batch) : input));
    return 0;
}
