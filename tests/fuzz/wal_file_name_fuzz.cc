#include "proto/wal_file_name.h"

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// A name that is taken is the one name of its file.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = as_text(fuzz_input(data, size));
    for (std::uint64_t segment_bytes : {1_MiB, 16_MiB, 1_GiB}) {
        auto name = parse_wal_file_name(text, segment_bytes);
        if (!name) continue;
        const std::string printed =
            name->kind == WalFileName::Kind::history
                ? history_file_name(name->timeline)
                : segment_file_name(name->timeline, name->segment_number, segment_bytes);
        WV_ASSERT(text.starts_with(printed));
    }
    return 0;
}
