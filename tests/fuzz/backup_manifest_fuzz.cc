#include "proto/backup_manifest.h"

#include <algorithm>

#include "proto/archive_path.h"
#include "tests/fuzz/fuzz_target.h"

using namespace walvault;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteSpan input = fuzz_input(data, size);
    const std::size_t piece_bytes = take_piece_bytes(input);
    std::uint64_t file_count = 0;
    std::uint64_t hashed_bytes = 0;
    BackupManifestReader reader(
        [&](const BackupManifestFile& file) -> Result<> {
            WV_ASSERT(is_safe_relative_path(file.path));
            ++file_count;
            return {};
        },
        // Zeros, so that an input can reach the end without knowing SHA-256.
        [&](ByteSpan piece, bool) {
            hashed_bytes += piece.size();
            return Id32{};
        });
    while (!input.empty()) {
        const ByteSpan piece = input.first(std::min(piece_bytes, input.size()));
        input = input.subspan(piece.size());
        if (!reader.feed(piece)) return 0;
    }
    auto summary = reader.finish();
    if (summary) WV_ASSERT(summary->file_count == file_count && hashed_bytes < size);
    return 0;
}
