#include "wal/received_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace walvault::wal {
namespace {

constexpr std::size_t kFilesMax = 20'000'000;

// 64 bits: among a million files two paths share one with a probability below 3e-8, and the backup is
// then refused, never accepted wrongly.
std::uint64_t hash_of(std::string_view path) { return std::hash<std::string_view>()(path); }

}  // namespace

Result<> ReceivedFiles::add(std::string_view path, std::uint64_t size_bytes, std::uint32_t crc32c) {
    if (records_.size() >= kFilesMax)
        return fail(Errc::corrupt, fmt::format("the backup has more than {} files", kFilesMax));
    Record record{};
    record.path_hash = hash_of(path);
    record.size_bytes = size_bytes & ~(std::uint64_t{1} << 63);
    record.crc32c = crc32c;
    records_.push_back(record);
    return {};
}

Result<> ReceivedFiles::seal() {
    auto by_hash = [](const Record& a, const Record& b) { return a.path_hash < b.path_hash; };
    auto same_hash = [](const Record& a, const Record& b) { return a.path_hash == b.path_hash; };
    std::sort(records_.begin(), records_.end(), by_hash);
    if (std::adjacent_find(records_.begin(), records_.end(), same_hash) != records_.end())
        return fail(Errc::corrupt, "a file of the backup came twice");
    return {};
}

Result<> ReceivedFiles::match(const BackupManifestFile& file) {
    std::uint64_t hash = hash_of(file.path);
    auto at = std::lower_bound(
        records_.begin(), records_.end(), hash,
        [](const Record& record, std::uint64_t wanted) { return record.path_hash < wanted; });
    if (at == records_.end() || at->path_hash != hash)
        return fail(Errc::corrupt, fmt::format("the manifest names {}, which did not come", file.path));
    if (at->matched) return fail(Errc::corrupt, fmt::format("the manifest names {} twice", file.path));
    if (at->size_bytes != file.size_bytes)
        return fail(Errc::corrupt, fmt::format("{} came with {} bytes, the manifest says {}", file.path,
                                               std::uint64_t{at->size_bytes}, file.size_bytes));
    if (file.checksum_algorithm != "CRC32C" || file.checksum.size() != 4)
        return fail(Errc::corrupt, fmt::format("the manifest has no CRC32C of {} but \"{}\" of {} bytes",
                                               file.path, file.checksum_algorithm, file.checksum.size()));
    // PostgreSQL writes the four bytes as they lie in its memory.
    std::uint32_t expected = load_le<std::uint32_t>(file.checksum.data());
    if (at->crc32c != expected)
        return fail(Errc::corrupt, fmt::format("{} came with CRC-32C {:08x}, the manifest says {:08x}",
                                               file.path, at->crc32c, expected));
    at->matched = 1;
    ++matched_count_;
    return {};
}

Result<> ReceivedFiles::all_matched() const {
    if (matched_count_ == records_.size()) return {};
    return fail(Errc::corrupt, fmt::format("{} files came, the manifest names {} of them",
                                           records_.size(), matched_count_));
}

}  // namespace walvault::wal
