#include "proto/tar.h"

#include <algorithm>

#include "proto/archive_path.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

// Members and data come in order, with the sizes that were announced, under safe paths.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteSpan input = fuzz_input(data, size);
    const std::size_t piece_bytes = take_piece_bytes(input);
    std::uint64_t expected_bytes = 0;
    bool in_file = false;
    TarReader reader({.on_member = [&](const TarMember& member) -> Result<> {
                          WV_ASSERT(!in_file && is_safe_relative_path(member.path));
                          in_file = member.type == TarMember::Type::file;
                          expected_bytes = member.size_bytes;
                          return {};
                      },
                      .on_data = [&](ByteSpan bytes) -> Result<> {
                          WV_ASSERT(in_file && bytes.size() <= expected_bytes);
                          expected_bytes -= bytes.size();
                          return {};
                      },
                      .on_member_end = [&]() -> Result<> {
                          WV_ASSERT(in_file && expected_bytes == 0);
                          in_file = false;
                          return {};
                      }});
    while (!input.empty()) {
        const ByteSpan piece = input.first(std::min(piece_bytes, input.size()));
        input = input.subspan(piece.size());
        if (!reader.feed(piece)) return 0;
    }
    if (reader.finish()) WV_ASSERT(!in_file);
    return 0;
}
