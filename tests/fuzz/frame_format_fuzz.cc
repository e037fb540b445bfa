#include "proto/frame_format.h"

#include <algorithm>

#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// Headers that are taken are written back byte for byte.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const ByteSpan input = fuzz_input(data, size);
    if (auto header = decode_file_header(input)) {
        std::array<std::byte, kFileHeaderBytes> out{};
        encode_file_header(*header, out);
        auto again = decode_file_header(out);
        WV_ASSERT(again && again->file_id == header->file_id &&
                  again->start_lsn == header->start_lsn);
    }
    if (auto header = decode_frame_header(input)) {
        WV_ASSERT(header->plain_bytes <= kFramePlainBytesMax);
        std::array<std::byte, kFrameHeaderBytes> out{};
        encode_frame_header(*header, out);
        auto again = decode_frame_header(out);
        WV_ASSERT(again && again->nonce == header->nonce &&
                  again->sealed_bytes == header->sealed_bytes);
    }
    if (auto trailer = decode_pack_trailer(input)) {
        std::array<std::byte, kPackTrailerBytes> out{};
        encode_pack_trailer(*trailer, out);
        auto again = decode_pack_trailer(out);
        WV_ASSERT(again && again->footer_offset == trailer->footer_offset);
    }
    return 0;
}
