#include "proto/repository.pb.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

namespace {

template <class Message>
void round_trip(ByteSpan input) {
    Message message;
    if (!message.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
    Message again;
    WV_ASSERT(again.ParseFromString(message.SerializeAsString()));
}

}  // namespace

// The first byte chooses the message.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0 || size > 1_MiB) return 0;
    const ByteSpan input = fuzz_input(data, size).subspan(1);
    switch (data[0] % 4) {
        case 0:
            round_trip<pb::LedgerEntry>(input);
            break;
        case 1:
            round_trip<pb::PackFooter>(input);
            break;
        case 2:
            round_trip<pb::ManifestBatch>(input);
            break;
        default:
            round_trip<pb::KeyringContent>(input);
            break;
    }
    return 0;
}
