#include "agent/missing_wal.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "agent/fetch_command.h"
#include "agent/primed_tracker.h"
#include "base/blocking.h"
#include "base/log.h"
#include "proto/wal_file_name.h"

namespace walvault::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kPieceBytes = 1 << 20;

// Of one repository, whose only writer this is.
std::string directory_prefix(const Id16& repository) {
    return "walvault-fetch-" + to_hex(repository) + "-";
}

// What an agent that was killed left.
void remove_leftovers(const std::string& prefix) {
    std::error_code ignored;
    const fs::path place = fs::temp_directory_path(ignored);
    std::vector<fs::path> left;
    for (fs::directory_iterator each(place, ignored), end; !ignored && each != end;
         each.increment(ignored))
        if (each->path().filename().string().starts_with(prefix)) left.push_back(each->path());
    for (const fs::path& path : left)
        fs::remove_all(path, ignored);
}

Result<std::string> make_private_directory(const std::string& prefix) {
    std::error_code error;
    std::string name = fs::temp_directory_path(error).string() + "/" + prefix + "XXXXXX";
    if (error || ::mkdtemp(name.data()) == nullptr)
        return fail(Errc::unavailable,
                    "make a directory for a fetched segment, " + name + ": " +
                        (error ? error.message() : std::strerror(errno)),
                    "TMPDIR names where");
    return name;
}

FetchResult result_of(const Error& error) {
    if (error.code == Errc::not_found) return FetchResult::absent;
    return error.code == Errc::refused ? FetchResult::refused : FetchResult::failed;
}

tl::unexpected<Error> refusal(const std::string& segment, const std::string& why) {
    return fail(Errc::refused, "segment " + segment + " from wal_fetch is refused: " + why,
                "look whether the command reads the archive of this very cluster");
}

}  // namespace

// What the command made; gone with this.
struct MissingWal::Segment {
    ~Segment() {
        std::error_code ignored;
        fs::remove_all(directory, ignored);
    }

    std::string name;
    std::string directory;
    std::unique_ptr<File> file;
};

struct MissingWal::Run {
    Lsn end_of(Lsn at) const { return std::min(at + segment_bytes, fetch.to); }

    storage::HistoryRecord history;
    StreamStart::Fetch fetch;
    Lsn from;
    std::uint64_t segment_bytes = 0;
    std::optional<WalComparison> comparison;
    storage::WalTracker trial;  // sees a segment before the pipeline does
};

Task<Result<>> MissingWal::fetch(const StreamStart& start, const storage::ClusterRecord& cluster) {
    const storage::HistoryRecord& history = start.history;
    WV_CO_TRY(storage::WalTracker tracker,
              co_await primed_tracker(pools_, repository_, cluster, history));
    WV_CO_TRY(storage::WalTracker trial,
              co_await primed_tracker(pools_, repository_, cluster, history));
    Run run{.history = history,
            .fetch = *start.fetch,
            .from = start.from_lsn,
            .segment_bytes = start.segment_bytes,
            .comparison = {},
            .trial = std::move(trial)};
    run.comparison.emplace(pools_, repository_, history, start.from_lsn);
    log::info("wal.fetching",
              "the server has removed WAL that is needed: wal_fetch is asked for it",
              {{"history", to_hex(history.id).substr(0, 8)},
               {"from_lsn", to_string(history.end_lsn)},
               {"to_lsn", to_string(run.fetch.to)}});
    auto clean = [prefix = directory_prefix(repository_.repository_id())]() -> Result<> {
        remove_leftovers(prefix);
        return {};
    };
    (void)co_await run_on(pools_.command, clean);
    progress_.reset(history, history.end_lsn);
    pipeline_.begin(history, cluster, std::move(tracker));
    auto taken = co_await take_all(run);
    auto finished = co_await pipeline_.finish();
    if (!finished) co_return finished;
    if (taken)
        log::info("wal.fetched", "WAL that the server has removed was fetched: nothing is missing",
                  {{"from_lsn", to_string(history.end_lsn)},
                   {"to_lsn", to_string(progress_.flushed_lsn())}});
    else
        log::warn("wal.not_fetched", taken.error().message,
                  {{"hint", taken.error().hint},
                   {"fetched_to_lsn", to_string(progress_.flushed_lsn())},
                   {"to_lsn", to_string(run.fetch.to)}});
    co_return taken;
}

Task<Result<>> MissingWal::take_all(Run& run) {
    for (Lsn at = run.from; at < run.fetch.to; at = at + run.segment_bytes) {
        auto taken = co_await take_segment(run, at);
        if (taken) continue;
        metrics_.wal_fetches_total.at(result_of(taken.error())).add();
        // It was only to be compared. Where it is not to be had, the first record must do as proof.
        const bool needed = at + run.segment_bytes > run.history.end_lsn;
        if (needed || taken.error().code != Errc::not_found) co_return taken;
        run.comparison.emplace(pools_, repository_, run.history, at + run.segment_bytes);
    }
    co_return Result<>();
}

Task<Result<>> MissingWal::take_segment(Run& run, Lsn at) {
    WV_CO_TRY(std::shared_ptr<Segment> segment, co_await get(run, at));
    WV_CO_CHECK(co_await check(run, *segment, at));
    metrics_.wal_fetches_total.at(FetchResult::found).add();
    co_return co_await append(run, *segment, at);
}

// Where a timeline ended within a segment, it may be there under the next timeline's name only:
// that one holds the same bytes up to there.
Task<Result<std::shared_ptr<MissingWal::Segment>>> MissingWal::get(const Run& run, Lsn at) {
    const std::uint64_t number = at.value / run.segment_bytes;
    std::vector<std::string> names{
        segment_file_name(run.history.timeline, number, run.segment_bytes)};
    if (run.fetch.next_timeline != 0 && run.end_of(at) == run.fetch.to)
        names.push_back(segment_file_name(run.fetch.next_timeline, number, run.segment_bytes));
    auto work = [names, words = words_, timeout = timeout_, cancelled = cancelled_,
                 bytes = run.segment_bytes,
                 prefix = directory_prefix(
                     repository_.repository_id())]() -> Result<std::shared_ptr<Segment>> {
        auto segment = std::make_shared<Segment>();
        WV_TRY(segment->directory, make_private_directory(prefix));
        Result<> fetched;
        for (const std::string& name : names) {
            segment->name = name;
            const std::string path = segment->directory + "/" + name;
            fetched = run_fetch(fetch_arguments(words, name, path), timeout, *cancelled);
            if (!fetched && fetched.error().code == Errc::not_found) continue;
            WV_CHECK(fetched);
            std::error_code error;
            const bool is_file = fs::is_regular_file(path, error);
            const std::uint64_t size = is_file ? fs::file_size(path, error) : 0;
            if (!is_file || error || size != bytes)
                return fail(Errc::unavailable,
                            fmt::format("wal_fetch ended with 0, but the file of {} has {} bytes, "
                                        "not {}",
                                        name, size, bytes));
            WV_TRY(segment->file, posix_file_system().open_read(path));
            return segment;
        }
        return fail_while("segment " + names.front(), fetched.error());
    };
    co_return co_await run_on(pools_.command, std::move(work));
}

Task<Result<ByteBuffer>> MissingWal::read(const Segment& segment, std::uint64_t offset,
                                          std::uint64_t end) {
    auto work = [file = segment.file.get(), offset, end]() -> Result<ByteBuffer> {
        ByteBuffer bytes(std::min(kPieceBytes, end - offset));
        WV_TRY(const std::size_t count, file->read_at(offset, bytes));
        if (count != bytes.size())
            return fail(Errc::unavailable, "a fetched segment became shorter while it was read");
        return bytes;
    };
    co_return co_await run_on(pools_.command, std::move(work));
}

Task<Result<>> MissingWal::check(Run& run, const Segment& segment, Lsn at) {
    const std::uint64_t bytes = run.end_of(at) - at;
    for (std::uint64_t offset = 0; offset < bytes; offset += kPieceBytes) {
        WV_CO_TRY(const ByteBuffer piece, co_await read(segment, offset, bytes));
        const Lsn start = at + offset;
        if (!run.comparison->is_complete()) {
            WV_CO_TRY(auto differs, co_await run.comparison->take(piece));
            if (differs)
                co_return refusal(segment.name,
                                  "it differs from what is stored, at " + to_string(*differs));
        }
        const Lsn have = std::max(run.history.end_lsn, start);
        if (start + piece.size() <= have) continue;
        auto fed = run.trial.feed(ByteSpan(piece).subspan(have - start));
        if (!fed && fed.error().code == Errc::corrupt)
            co_return refusal(segment.name,
                              "it does not continue what is stored: " + fed.error().message);
        if (!fed) co_return fed;
    }
    (void)run.trial.take_frame();
    co_return Result<>();
}

Task<Result<>> MissingWal::append(const Run& run, const Segment& segment, Lsn at) {
    const std::uint64_t bytes = run.end_of(at) - at;
    const Lsn have = std::max(run.history.end_lsn, at);
    for (std::uint64_t offset = have - at; offset < bytes; offset += kPieceBytes) {
        WV_CO_TRY(const ByteBuffer piece, co_await read(segment, offset, bytes));
        WV_CO_CHECK(co_await pipeline_.append(piece));
    }
    co_return Result<>();
}

}  // namespace walvault::agent
