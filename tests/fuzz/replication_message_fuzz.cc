#include "proto/replication_message.h"

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto message = decode_server_message(fuzz_input(data, size));
    if (!message) return 0;
    if (const auto* wal = std::get_if<XLogData>(&*message))
        WV_ASSERT(wal->start_lsn <= wal->start_lsn + wal->wal.size());
    return 0;
}
