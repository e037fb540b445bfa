#include "proto/base_backup_message.h"

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// No archive name leads out of the directory it is put in.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto message = decode_base_backup_message(fuzz_input(data, size));
    if (!message) return 0;
    if (const auto* start = std::get_if<ArchiveStart>(&*message))
        WV_ASSERT(start->archive_name.find('/') == std::string::npos);
    return 0;
}
