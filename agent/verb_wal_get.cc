#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/open_view.h"
#include "agent/restore_plan.h"
#include "agent/verbs.h"
#include "agent/wal_spool.h"
#include "base/log.h"
#include "proto/wal_file_name.h"

namespace walvault::agent {
namespace {

// Which history PostgreSQL replays: what the restore wrote into its data directory, where the
// restore_command runs; without it, the history being followed.
Result<storage::HistoryRecord> wanted_history(OpenedView& opened) {
    WV_TRY(auto histories, opened.view->histories(opened.cluster.name));
    if (histories.empty())
        return fail(Errc::gap, "the repository has no WAL of " + opened.cluster.name);
    auto bytes = read_file(posix_file_system(), kRestoreRecord, kRestoreRecordBytesMax);
    if (!bytes && bytes.error().code == Errc::not_found) {
        WV_TRY(auto current, opened.view->current_history(opened.cluster.name));
        for (const auto& history : histories)
            if (current && history.id == *current) return history;
        return histories.back();
    }
    if (!bytes) return fail(bytes.error());
    const auto record = nlohmann::json::parse(as_text(*bytes), nullptr, false);
    const std::string wanted =
        record.is_object() && record.contains("history_id") && record["history_id"].is_string()
            ? record["history_id"].get<std::string>()
            : "";
    for (const auto& history : histories)
        if (to_hex(history.id) == wanted) return history;
    return fail(Errc::corrupt,
                std::string(kRestoreRecord) + " names no history of " + opened.cluster.name);
}

Result<> write_whole(const std::string& path, const std::function<Result<>(File&)>& fill) {
    FileSystem& files = posix_file_system();
    const std::string temporary = path + ".walvault-" + std::to_string(::getpid());
    if (auto removed = files.remove(temporary); !removed && removed.error().code != Errc::not_found)
        return removed;
    auto written = [&]() -> Result<> {
        WV_TRY(auto file, files.create(temporary, 0600));
        WV_CHECK(fill(*file));
        return file->sync_data();
    }();
    if (written) return files.rename(temporary, path);
    static_cast<void>(files.remove(temporary));
    return written;
}

enum class Fetched { found, absent };

// Of the lineage being replayed, else of any history that took the number: PostgreSQL asks for the
// next free one when it is promoted.
Result<Fetched> fetch_history(OpenedView& opened, TimelineId timeline, const std::string& path) {
    WV_TRY(storage::HistoryRecord wanted, wanted_history(opened));
    WV_TRY(auto histories, opened.view->histories(opened.cluster.name));
    histories.insert(histories.begin(), wanted);
    for (const auto& history : histories) {
        auto text = opened.view->timeline_history(history.id, timeline);
        if (!text && text.error().code == Errc::not_found) continue;
        if (!text) return fail(text.error());
        WV_CHECK(write_whole(path, [&](File& file) { return file.write(as_bytes(*text)); }));
        return Fetched::found;
    }
    return Fetched::absent;
}

// The segments after `done` that PostgreSQL will ask for next, as far as there is room for them. An
// error ends it and is told when that segment is asked for.
unsigned fetch_ahead(OpenedView& opened, const storage::HistoryRecord& history,
                     const std::vector<TimelineSwitch>& switches, std::uint64_t done,
                     WalSpool& spool) {
    const std::uint64_t size = opened.cluster.segment_bytes;
    spool.clear();
    unsigned count = 0;
    for (std::uint64_t number = done + 1; spool.has_room(size); ++number, ++count) {
        const Lsn from{number * size};
        const Lsn to{from.value + size};
        // Whole ones only: more may be received of the last one until it is asked for.
        if (from >= spool.end_lsn() || to > history.end_lsn) break;
        if (!opened.view->require_coverage(history.id, from, to)) break;
        const TimelineId timeline = timeline_of_segment(switches, history.timeline, number, size);
        const auto fill = [&](const WalSpool::Sink& sink) {
            return opened.view->read_wal(history.id, from, to, sink);
        };
        if (!spool.put(segment_file_name(timeline, number, size), fill)) break;
    }
    return count;
}

// Absent only where the history proves that there is nothing: before its end every hole is a gap.
Result<Fetched> fetch_segment(OpenedView& opened, const WalFileName& name,
                              const std::string& path) {
    WV_TRY(storage::HistoryRecord history, wanted_history(opened));
    const std::uint64_t size = opened.cluster.segment_bytes;
    std::vector<TimelineSwitch> switches;
    if (history.timeline > 1) {
        WV_TRY(std::string text, opened.view->timeline_history(history.id, history.timeline));
        WV_TRY(switches, parse_timeline_history(text, history.timeline));
    }
    const Lsn from = name.start_lsn(size);
    if (timeline_of_segment(switches, history.timeline, name.segment_number, size) != name.timeline)
        return Fetched::absent;
    if (from >= history.end_lsn) return Fetched::absent;
    const Lsn to = std::min(from + size, history.end_lsn);
    WV_CHECK(opened.view->require_coverage(history.id, from, to));
    const auto fill = [&](File& file) -> Result<> {
        WV_CHECK(opened.view->read_wal(history.id, from, to,
                                       [&](ByteSpan bytes) { return file.write(bytes); }));
        // PostgreSQL takes segments of full size only; zeros end the WAL.
        return file.truncate(size);
    };
    WV_CHECK(write_whole(path, fill));
    unsigned ahead = 0;
    if (auto spool = WalSpool::open(posix_file_system(), ".", path))
        ahead = fetch_ahead(opened, history, switches, name.segment_number, *spool);
    log::debug("wal_get.fetched", "a segment was read from the repository",
               {{"segment", segment_file_name(name.timeline, name.segment_number, size)},
                {"ahead", ahead}});
    return Fetched::found;
}

Result<Fetched> fetch(const Globals& globals, const WalGetArguments& arguments) {
    if (auto spool = WalSpool::open(posix_file_system(), ".", arguments.path))
        if (spool->take(arguments.file)) return Fetched::found;
    // The restore that asks may have begun before its WAL expired.
    WV_TRY(OpenedView opened, open_view(globals, {.with_condemned = true}));
    WV_TRY(WalFileName name, parse_wal_file_name(arguments.file, opened.cluster.segment_bytes));
    if (name.kind == WalFileName::Kind::history)
        return fetch_history(opened, name.timeline, arguments.path);
    if (name.kind == WalFileName::Kind::segment) return fetch_segment(opened, name, arguments.path);
    return Fetched::absent;  // .partial and .backup files: PostgreSQL asks for none, we keep none
}

}  // namespace

// PostgreSQL takes 1 to 125 for "end of WAL" and promotes with data missing; so 1 means proven
// absent, and an error of any kind, also one that says not_found, is fatal to the recovery.
int verb_wal_get(const Globals& globals, const WalGetArguments& arguments) {
    auto fetched = fetch(globals, arguments);
    if (!fetched) return report(globals, fetched.error(), kExitWalGetFatal);
    return *fetched == Fetched::found ? kExitDone : kExitFailed;
}

}  // namespace walvault::agent
