#include "agent/wal_spool.h"

#include <array>
#include <nlohmann/json.hpp>

#include "agent/restore_plan.h"
#include "base/crc32c.h"

namespace walvault::agent {
namespace {

constexpr std::uint64_t kSegmentBytesMax = 1_GiB;
// Left for the segment being replayed, the one after it, and what the server writes.
constexpr std::uint64_t kSpareBytes = 64_MiB;
constexpr const char* kDirectory = "walvault-spool";
constexpr const char* kUnfinished = "unfinished";
// As PostgreSQL's recovery names the file that restore_command is to make.
constexpr const char* kWantedName = "RECOVERYXLOG";

std::string text_in(const nlohmann::json& record, const char* key) {
    auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string checksum_text(std::uint32_t checksum) {
    std::array<std::byte, 4> bytes{};
    store_be(bytes.data(), checksum);
    return to_hex(bytes);
}

Result<> sync_file(FileSystem& files, const std::string& path) {
    WV_TRY(auto file, files.open_append(path));
    return file->sync_data();
}

}  // namespace

std::optional<WalSpool> WalSpool::open(FileSystem& files, const std::string& data_directory,
                                       const std::string& path) {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos || path.substr(slash + 1) != kWantedName) return {};
    auto bytes = read_file(files, data_directory + "/" + kRestoreRecord, kRestoreRecordBytesMax);
    if (!bytes) return {};
    const auto record = nlohmann::json::parse(as_text(*bytes), nullptr, false);
    if (!record.is_object()) return {};
    auto end = parse_lsn(text_in(record, "wal_to_lsn"));
    WalSpool spool(files, path.substr(0, slash + 1) + kDirectory, path);
    spool.history_ = text_in(record, "history_id");
    if (spool.history_.empty() || !end) return {};
    spool.end_lsn_ = *end;
    return spool;
}

bool WalSpool::take(const std::string& segment) {
    auto entries = files_.list(directory_);
    if (!entries) return false;
    const std::string prefix = segment + "-" + history_ + "-";
    for (const FileInfo& entry : *entries) {
        if (!entry.name.starts_with(prefix)) continue;
        const std::string whole = directory_ + "/" + entry.name;
        auto bytes = read_file(files_, whole, kSegmentBytesMax);
        if (bytes && prefix + checksum_text(crc32c(*bytes)) == entry.name &&
            sync_file(files_, whole) && files_.rename(whole, path_).has_value())
            return true;
        static_cast<void>(files_.remove(whole));
        return false;
    }
    return false;
}

void WalSpool::clear() {
    auto entries = files_.list(directory_);
    if (!entries) return;
    for (const FileInfo& entry : *entries)
        static_cast<void>(files_.remove(directory_ + "/" + entry.name));
    stored_bytes_ = 0;
}

bool WalSpool::has_room(std::uint64_t segment_bytes) const {
    if (stored_bytes_ + segment_bytes > kSpoolBytesMax) return false;
    auto free = files_.available_bytes(path_.substr(0, path_.rfind('/')));
    return free && *free >= 3 * segment_bytes + kSpareBytes;
}

Result<> WalSpool::put(const std::string& segment,
                       const std::function<Result<>(const Sink&)>& fill) {
    WV_CHECK(files_.make_directories(directory_, 0700));
    const std::string temporary = directory_ + "/" + kUnfinished;
    auto written = [&]() -> Result<> {
        static_cast<void>(files_.remove(temporary));
        WV_TRY(auto file, files_.create(temporary, 0600));
        std::uint32_t checksum = kCrc32cInit;
        WV_CHECK(fill([&](ByteSpan bytes) {
            checksum = crc32c_extend(checksum, bytes);
            stored_bytes_ += bytes.size();
            return file->write(bytes);
        }));
        return files_.rename(temporary, directory_ + "/" + segment + "-" + history_ + "-" +
                                            checksum_text(crc32c_finish(checksum)));
    }();
    if (!written) static_cast<void>(files_.remove(temporary));
    return written;
}

}  // namespace walvault::agent
