#include "wal/base_backup_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include "base/crc32c.h"
#include "base/sha256.h"
#include "proto/base_backup_message.h"
#include "proto/tar.h"
#include "wal/received_files.h"
#include "wal/walsender.h"

namespace walvault::wal {
namespace {

constexpr std::uint64_t kMaxRateLowestKib = 32;
constexpr std::uint64_t kMaxRateHighestKib = 1_MiB;

Result<std::string> command_of(const ServerVersion& version, const BackupOptions& options) {
    // The label becomes a line of backup_label.
    bool printable = std::all_of(options.label.begin(), options.label.end(),
                                 [](unsigned char c) { return c >= 0x20 && c != 0x7F; });
    if (!printable || options.label.size() > 1000)
        return fail(Errc::invalid_argument, "a backup's label has at most 1000 bytes on one line");
    const std::uint64_t rate_kib =
        std::clamp(options.max_rate_bytes / 1024, kMaxRateLowestKib, kMaxRateHighestKib);
    const std::string label = quote_literal(options.label);
    if (!version.has_backup_messages)
        return fmt::format("BASE_BACKUP LABEL {} PROGRESS{} NOWAIT{} TABLESPACE_MAP MANIFEST 'yes' "
                           "MANIFEST_CHECKSUMS 'CRC32C'",
                           label, options.fast_checkpoint ? " FAST" : "",
                           options.max_rate_bytes > 0 ? fmt::format(" MAX_RATE {}", rate_kib) : "");
    return fmt::format(
        "BASE_BACKUP (LABEL {}, PROGRESS, CHECKPOINT '{}', WAIT 0, TABLESPACE_MAP, MANIFEST 'yes', "
        "MANIFEST_CHECKSUMS 'CRC32C'{})",
        label, options.fast_checkpoint ? "fast" : "spread",
        options.max_rate_bytes > 0 ? fmt::format(", MAX_RATE {}", rate_kib) : "");
}

template <class T>
Result<T> number_in(const std::optional<std::string>& text, std::string_view what) {
    T value{};
    if (!text) return fail(Errc::corrupt, fmt::format("the server gave no {}", what));
    auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || text->empty())
        return fail(Errc::corrupt, fmt::format("the server's {} \"{}\" is not a number", what, *text));
    return value;
}

// "recptr, tli": the row that starts and the row that ends a backup.
Result<std::pair<Lsn, TimelineId>> position_in(const QueryResult& result, std::string_view what) {
    bool shaped = result.kind == QueryResult::Kind::rows && result.rows.size() == 1 &&
                  result.rows.front().size() >= 2 && result.rows.front()[0];
    if (!shaped) return fail(Errc::corrupt, fmt::format("the server gave no {} of the backup", what));
    WV_TRY(Lsn lsn, parse_lsn(*result.rows.front()[0]));
    WV_TRY(auto timeline, number_in<TimelineId>(result.rows.front()[1], "timeline of the backup"));
    if (!lsn || timeline == 0)
        return fail(Errc::corrupt, fmt::format("the server's {} of the backup is {} on timeline {}", what,
                                               to_string(lsn), timeline));
    return std::pair(lsn, timeline);
}

Result<BackupStart> start_in(const std::vector<QueryResult>& results) {
    if (results.size() != 3 || results[2].kind != QueryResult::Kind::copy_out)
        return fail(Errc::corrupt,
                    fmt::format("BASE_BACKUP began with {} results, not two sets of rows and a copy",
                                results.size()));
    BackupStart start;
    bool has_base = false;
    WV_TRY(auto position, position_in(results[0], "start"));
    std::tie(start.start_lsn, start.timeline) = position;
    for (const auto& row : results[1].rows) {
        if (row.size() < 3) return fail(Errc::corrupt, "a tablespace of the backup has too few columns");
        WV_TRY(auto size_kib, number_in<std::uint64_t>(row[2], "size of a tablespace"));
        start.expected_bytes += size_kib * 1024;
        // The data directory itself: its archive is always the last.
        if (has_base) return fail(Errc::corrupt, "the backup lists an archive after the base");
        has_base = !row[0];
        if (has_base) continue;
        BackupTablespace tablespace;
        WV_TRY(tablespace.oid, number_in<std::uint32_t>(row[0], "OID of a tablespace"));
        tablespace.location = row[1].value_or(std::string());
        start.tablespaces.push_back(std::move(tablespace));
    }
    if (!has_base) return fail(Errc::corrupt, "the backup lists no archive of the base");
    return start;
}

std::vector<ArchiveStart> archives_in_order(const BackupStart& start) {
    std::vector<ArchiveStart> archives;
    for (const auto& tablespace : start.tablespaces)
        archives.push_back({std::to_string(tablespace.oid) + ".tar", tablespace.location});
    archives.push_back({"base.tar", ""});
    return archives;
}

// One happening inside a message of archive data. TarReader calls back at once, the consumer is
// awaited: what one message holds is collected first. `bytes` is a view into that message.
struct TarEvent {
    enum class Kind { member, data, end } kind = Kind::data;
    TarMember member = {};
    ByteSpan bytes = {};
};

class BackupRun {
public:
    BackupRun(Connection& connection, BackupConsumer& consumer)
        : connection_(connection), consumer_(consumer) {}

    Task<Result<BackupStop>> run(BackupOptions options,
                                 std::function<Task<Result<>>(BackupStart)> on_start);

private:
    Task<Result<>> take_messages();
    Task<Result<>> take_copies();
    Task<Result<>> take_copy();
    Task<Result<>> expect_another_copy();
    Task<Result<>> take(ByteSpan message);
    Result<> start_archive(const ArchiveStart& archive);
    Result<> finish_archive();
    Result<> start_manifest();
    Task<Result<>> take_archive_data(ByteSpan bytes);
    Task<Result<>> deliver(const TarEvent& event);
    Result<> check_member(const TarMember& member) const;
    Result<BackupStop> stop_in(const std::vector<QueryResult>& results);
    Result<> check_manifest(const BackupStop& stop) const;
    TarReader make_tar_reader();

    Connection& connection_;
    BackupConsumer& consumer_;
    const ServerVersion* version_ = nullptr;
    std::uint64_t system_identifier_ = 0;  // what the manifest must name; 0: not checked
    BackupStart start_;
    std::uint64_t received_bytes_ = 0;  // of the copies of a server that does not count for us
    std::set<std::string> archives_awaited_;
    std::string path_prefix_;  // of the current archive
    std::optional<TarReader> tar_;
    std::vector<TarEvent> events_;
    std::string current_path_;
    std::uint64_t current_bytes_ = 0;
    std::uint32_t current_crc_ = 0;
    ReceivedFiles files_;
    Sha256 sha256_;
    std::optional<BackupManifestReader> manifest_;
};

TarReader BackupRun::make_tar_reader() {
    TarReader::Callbacks callbacks;
    callbacks.on_member = [this](const TarMember& member) -> Result<> {
        WV_CHECK(check_member(member));
        TarEvent& event = events_.emplace_back();
        event.kind = TarEvent::Kind::member;
        event.member = member;
        return {};
    };
    callbacks.on_data = [this](ByteSpan bytes) -> Result<> {
        events_.emplace_back().bytes = bytes;
        return {};
    };
    callbacks.on_member_end = [this]() -> Result<> {
        events_.emplace_back().kind = TarEvent::Kind::end;
        return {};
    };
    return TarReader(std::move(callbacks));
}

Result<> BackupRun::check_member(const TarMember& member) const {
    if (member.type != TarMember::Type::symlink) return {};
    constexpr std::string_view kLinks = "pg_tblspc/";
    std::string_view oid = member.path;
    bool allowed = path_prefix_.empty() && oid.starts_with(kLinks);
    if (allowed) oid.remove_prefix(kLinks.size());
    allowed = allowed && !oid.empty() && oid.find_first_not_of("0123456789") == std::string_view::npos;
    if (allowed) return {};
    return fail(Errc::corrupt,
                fmt::format("the backup holds a symbolic link at {}{}, which PostgreSQL does not send",
                            path_prefix_, member.path));
}

Result<> BackupRun::start_archive(const ArchiveStart& archive) {
    WV_CHECK(finish_archive());
    if (manifest_) return fail(Errc::corrupt, "an archive follows the manifest");
    if (archives_awaited_.erase(archive.archive_name) == 0)
        return fail(Errc::corrupt,
                    fmt::format("the archive {} was not announced, or came twice", archive.archive_name));
    path_prefix_.clear();
    if (archive.archive_name != "base.tar") {
        std::string oid = archive.archive_name.substr(0, archive.archive_name.find('.'));
        path_prefix_ = "pg_tblspc/" + oid + "/";
    }
    tar_.emplace(make_tar_reader());
    return {};
}

Result<> BackupRun::finish_archive() {
    if (!tar_) return {};
    auto finished = tar_->finish();
    tar_.reset();
    return finished;
}

Result<> BackupRun::start_manifest() {
    WV_CHECK(finish_archive());
    if (manifest_) return fail(Errc::corrupt, "the backup has two manifests");
    if (!archives_awaited_.empty())
        return fail(Errc::corrupt,
                    fmt::format("the manifest came before the archive {}", *archives_awaited_.begin()));
    WV_CHECK(files_.seal());
    manifest_.emplace([this](const BackupManifestFile& file) { return files_.match(file); },
                      [this](ByteSpan piece, bool final) {
                          if (final) return sha256_.finish();
                          sha256_.update(piece);
                          return Id32{};
                      });
    return {};
}

Task<Result<>> BackupRun::deliver(const TarEvent& event) {
    if (event.kind == TarEvent::Kind::data) {
        current_crc_ = crc32c_extend(current_crc_, event.bytes);
        current_bytes_ += event.bytes.size();
        co_return co_await consumer_.on_data(event.bytes);
    }
    if (event.kind == TarEvent::Kind::end) {
        WV_CO_CHECK(files_.add(current_path_, current_bytes_, crc32c_finish(current_crc_)));
        co_return co_await consumer_.on_file_end();
    }
    using Type = BackupConsumer::Entry::Type;
    BackupConsumer::Entry entry;
    if (event.member.type == TarMember::Type::directory) entry.type = Type::directory;
    if (event.member.type == TarMember::Type::symlink) entry.type = Type::symlink;
    entry.path = path_prefix_ + event.member.path;
    entry.size_bytes = event.member.size_bytes;
    entry.mode = event.member.mode;
    entry.link_target = event.member.link_target;
    current_path_ = entry.path;
    current_bytes_ = 0;
    current_crc_ = kCrc32cInit;
    co_return co_await consumer_.on_entry(entry);
}

Task<Result<>> BackupRun::take_archive_data(ByteSpan bytes) {
    if (manifest_) {
        WV_CO_CHECK(manifest_->feed(bytes));
        co_return co_await consumer_.on_manifest(bytes);
    }
    if (!tar_) co_return fail(Errc::corrupt, "data came before the archive that it belongs to");
    events_.clear();
    WV_CO_CHECK(tar_->feed(bytes));
    for (const TarEvent& event : events_) WV_CO_CHECK(co_await deliver(event));
    co_return Result<>();
}

Task<Result<>> BackupRun::take(ByteSpan message) {
    WV_CO_TRY(auto decoded, decode_base_backup_message(message));
    if (auto* data = std::get_if<ArchiveData>(&decoded)) co_return co_await take_archive_data(data->bytes);
    if (auto* archive = std::get_if<ArchiveStart>(&decoded)) co_return start_archive(*archive);
    if (std::holds_alternative<ManifestStart>(decoded)) co_return start_manifest();
    consumer_.on_progress(std::get<BackupProgress>(decoded).done_bytes);
    co_return Result<>();
}

// What PostgreSQL sends after the copy: the end position, and only then whether it found page
// checksum failures. The rows alone are no success.
Result<BackupStop> BackupRun::stop_in(const std::vector<QueryResult>& results) {
    if (results.size() < 2 || results.back().kind != QueryResult::Kind::command)
        return fail(Errc::corrupt,
                    fmt::format("the server ended the backup with {} results, not with its end position "
                                "and a completed command",
                                results.size()));
    BackupStop stop;
    WV_TRY(auto position, position_in(results.front(), "end"));
    std::tie(stop.stop_lsn, stop.timeline) = position;
    if (!manifest_) return fail(Errc::corrupt, "the backup came without a manifest");
    WV_TRY(stop.manifest, manifest_->finish());
    WV_CHECK(files_.all_matched());
    WV_CHECK(check_manifest(stop));
    return stop;
}

Result<> BackupRun::check_manifest(const BackupStop& stop) const {
    if (stop.manifest.version < version_->manifest_version)
        return fail(Errc::corrupt,
                    fmt::format("the manifest has version {}, PostgreSQL {} writes version {}",
                                stop.manifest.version, version_->major, version_->manifest_version));
    if (stop.manifest.version >= 2 && system_identifier_ != 0 &&
        stop.manifest.system_identifier != system_identifier_)
        return fail(Errc::corrupt, fmt::format("the manifest is of system {}, the server is {}",
                                               stop.manifest.system_identifier, system_identifier_));
    bool starts = false;
    bool stops = false;
    for (const auto& range : stop.manifest.wal_ranges) {
        starts = starts || (range.timeline == start_.timeline && range.start_lsn == start_.start_lsn);
        stops = stops || (range.timeline == stop.timeline && range.end_lsn == stop.stop_lsn);
    }
    if (!starts || !stops || stop.stop_lsn < start_.start_lsn)
        return fail(Errc::corrupt,
                    fmt::format("the manifest's WAL range is not the backup's, {} to {}",
                                to_string(start_.start_lsn), to_string(stop.stop_lsn)));
    return {};
}

Task<Result<>> BackupRun::take_messages() {
    for (;;) {
        WV_CO_TRY(auto message, co_await connection_.next_copy_data());
        if (!message) co_return Result<>();
        WV_CO_CHECK(co_await take(message->bytes()));
    }
}

// Before 15: a copy for each tablespace in the order of the list, the base last, then one for the
// manifest. Only the order tells what a copy is.
Task<Result<>> BackupRun::take_copies() {
    const std::vector<ArchiveStart> archives = archives_in_order(start_);
    for (const ArchiveStart& archive : archives) {
        WV_CO_CHECK(start_archive(archive));
        WV_CO_CHECK(co_await take_copy());
        WV_CO_CHECK(co_await expect_another_copy());
    }
    WV_CO_CHECK(start_manifest());
    co_return co_await take_copy();
}

Task<Result<>> BackupRun::take_copy() {
    for (;;) {
        WV_CO_TRY(auto message, co_await connection_.next_copy_data());
        if (!message) co_return Result<>();
        if (!manifest_) {
            received_bytes_ += message->bytes().size();
            consumer_.on_progress(received_bytes_);
        }
        WV_CO_CHECK(co_await take_archive_data(message->bytes()));
    }
}

Task<Result<>> BackupRun::expect_another_copy() {
    WV_CO_TRY(auto results, co_await connection_.results_after_copy());
    if (results.size() == 1 && results.front().kind == QueryResult::Kind::copy_out) co_return Result<>();
    co_return fail(Errc::corrupt, "the server ended the backup before its last archive and manifest");
}

Task<Result<BackupStop>> BackupRun::run(BackupOptions options,
                                        std::function<Task<Result<>>(BackupStart)> on_start) {
    WV_CO_TRY(version_, server_version_of(connection_));
    system_identifier_ = options.system_identifier;
    WV_CO_TRY(auto command, command_of(*version_, options));
    WV_CO_TRY(auto results, co_await connection_.query(command));
    WV_CO_TRY(start_, start_in(results));
    archives_awaited_.insert("base.tar");
    for (const auto& tablespace : start_.tablespaces)
        archives_awaited_.insert(std::to_string(tablespace.oid) + ".tar");
    WV_CO_CHECK(co_await on_start(start_));
    if (version_->has_backup_messages) {
        WV_CO_CHECK(co_await take_messages());
    } else {
        WV_CO_CHECK(co_await take_copies());
    }
    WV_CO_TRY(results, co_await connection_.results_after_copy());
    co_return stop_in(results);
}

}  // namespace

// "checksum verification failed in file …" for the first pages of a file, and at the end, where there
// is more than one in all: "12 total checksum verification failures".
std::uint64_t page_checksum_failures(const std::string& message) {
    constexpr std::string_view kTotal = " total checksum verification failure";
    constexpr std::string_view kOne = "checksum verification failed in file";
    if (std::size_t at = message.find(kTotal); at != std::string::npos) {
        std::size_t first = at;
        while (first > 0 && message[first - 1] >= '0' && message[first - 1] <= '9')
            --first;
        std::uint64_t count = 0;
        std::from_chars(message.data() + first, message.data() + at, count);
        if (count > 0) return count;
    }
    std::uint64_t count = 0;
    for (std::size_t at = message.find(kOne); at != std::string::npos; at = message.find(kOne, at + 1))
        ++count;
    return count;
}

Task<Result<BackupStop>> run_base_backup(Connection& connection, BackupOptions options,
                                         std::function<Task<Result<>>(BackupStart)> on_start,
                                         BackupConsumer& consumer) {
    auto run = std::make_unique<BackupRun>(connection, consumer);
    auto stop = co_await run->run(std::move(options), std::move(on_start));
    if (!stop) co_return fail_while("base backup", std::move(stop).error());
    co_return std::move(*stop);
}

}  // namespace walvault::wal
