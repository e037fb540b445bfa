#include "storage/wal_store.h"

#include <algorithm>

#include "proto/server_version.h"
#include "storage/index_retention.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kRecentSourcesMax = 8;

Id16 id_of(const std::string& bytes) {
    Id16 id{};
    std::copy_n(as_bytes(bytes).begin(), std::min(bytes.size(), id.size()), id.begin());
    return id;
}

tl::unexpected<Error> missing(const Id16& history, Lsn from) {
    return fail(Errc::gap, "WAL of history " + to_hex(history) + " is not stored from " +
                               to_string(from) + " on");
}

// Leaves the part of `source` that belongs to the stretch.
WalSource cut_to(const Stretch& stretch, WalSource source) {
    source.is_cut = stretch.to < source.end_lsn;
    source.end_lsn = std::min(source.end_lsn, stretch.to);
    return source;
}

Lsn first_page_from(Lsn lsn) {
    return Lsn{(lsn.value + kWalPageBytes - 1) / kWalPageBytes * kWalPageBytes};
}

int first_frame_after(const PackReader& reader, Lsn lsn) {
    const auto& frames = reader.footer().frames();
    auto after = std::upper_bound(
        frames.begin(), frames.end(), lsn.value,
        [](std::uint64_t value, const pb::FrameEntry& frame) { return value < frame.start_lsn(); });
    return static_cast<int>(after - frames.begin());
}

}  // namespace

std::uint64_t transaction_count(const pb::WalSummary& summary) {
    return summary.commit_count() + summary.abort_count();
}

int WalSource::frame_count() const {
    return end_lsn.value == 0 ? 0 : first_frame_after(*reader, Lsn{end_lsn.value - 1});
}

int WalSource::frame_at(Lsn lsn) const { return first_frame_after(*reader, lsn) - 1; }

Result<const std::vector<Stretch>*> WalStore::stretches(const Id16& history) {
    auto known = lineages_.find(history);
    if (known == lineages_.end()) {
        WV_TRY(auto found, lineage_of(index_, history));
        known = lineages_.emplace(history, std::move(found)).first;
    }
    return &known->second;
}

const std::vector<WalSource>& WalStore::tails_of(const Id16& history) const {
    static const std::vector<WalSource> none;
    auto found = tails_.find(history);
    return found == tails_.end() ? none : found->second;
}

void WalStore::set_tails(std::vector<ScannedTail> tails) {
    tails_.clear();
    tails_largest_at_us_.clear();
    inherited_at_us_.clear();
    recent_.clear();
    for (ScannedTail& tail : tails) {
        const Id16& history = tail.header.history_id;
        tails_[history].push_back({.reader = tail.reader,
                                   .start_lsn = tail.header.start_lsn,
                                   .end_lsn = tail.end_lsn,
                                   .summary = tail.summary});
        std::int64_t& largest = tails_largest_at_us_[history];
        largest = std::max(largest, tail.largest_at_us);
    }
}

Result<std::optional<Lsn>> WalStore::start_behind(const pb::TailOpened& opened) {
    std::optional<Lsn> next;
    auto note = [&](std::uint64_t start) {
        if (start > opened.start_lsn() && (!next || start < next->value)) next = Lsn{start};
        return !next;
    };
    WV_CHECK(
        index_.each_wal_pack(id_of(opened.history_id()), Lsn{opened.start_lsn()}, false,
                             [&](const pb::PackInfo& pack) { return note(pack.start_lsn()); }));
    WV_TRY(auto open, index_.open_tails());
    for (const OpenTail& tail : open)
        if (tail.opened.history_id() == opened.history_id()) note(tail.opened.start_lsn());
    return next;
}

Result<ScannedTail> WalStore::scan_continuation(const pb::TailOpened& opened,
                                                std::uint32_t witness) {
    Id16 history = id_of(opened.history_id());
    Lsn start{opened.start_lsn()};
    TailScanOptions options;
    WV_TRY(options.largest_at_us, largest_at_us(history));
    WV_TRY(auto next, start_behind(opened));
    options.reached_lsn = next.value_or(Lsn{});
    // The first tail of a history begins at a page boundary; later ones continue what is stored,
    // unless that is lost.
    options.decode_from = first_page_from(start);
    WV_TRY(auto before, source_at(history, Lsn{start.value - 1}));
    if (before) {
        WV_TRY(options.decode_from, decode_start(history, start));
        options.prime = [this, history, start, from = options.decode_from](WalTracker& tracker) {
            return read(history, from, start, [&](ByteSpan wal) { return tracker.prime(wal); });
        };
    }
    WV_TRY(ScannedTail scanned, scan_tail(store_, opened.path(), keyring_, witness, options));
    if (!scanned.damage) return scanned;
    return scan_tail(store_, opened.path(), keyring_, witness, options);
}

Result<WalSource> WalStore::open_source(const pb::PackInfo& pack) {
    for (auto it = recent_.begin(); it != recent_.end(); ++it) {
        if (it->reader->path() != pack.path()) continue;
        recent_.splice(recent_.begin(), recent_, it);
        return recent_.front();
    }
    auto reader = PackReader::open(store_, pack, keyring_);
    if (!reader && reader.error().code == Errc::not_found)
        return fail(Errc::corrupt, "the pack " + pack.path() + " is missing",
                    "copy it back from another copy of this repository");
    if (!reader) return fail(reader.error());
    recent_.push_front({.reader = std::move(*reader),
                        .start_lsn = Lsn{pack.start_lsn()},
                        .end_lsn = Lsn{pack.end_lsn()},
                        .summary = pack.summary()});
    if (recent_.size() > kRecentSourcesMax) recent_.pop_back();
    return recent_.front();
}

Result<std::optional<WalSource>> WalStore::source_in(const Stretch& stretch, Lsn lsn) {
    for (const WalSource& tail : tails_of(stretch.history))
        if (tail.start_lsn <= lsn && lsn < tail.end_lsn)
            return std::optional<WalSource>(cut_to(stretch, tail));
    WV_TRY(auto pack, index_.wal_pack_at(stretch.history, lsn));
    if (!pack) return std::optional<WalSource>{};
    WV_TRY(WalSource source, open_source(*pack));
    return std::optional<WalSource>(cut_to(stretch, std::move(source)));
}

Result<std::optional<WalSource>> WalStore::source_at(const Id16& history, Lsn lsn) {
    WV_TRY(const auto* lineage, stretches(history));
    for (const Stretch& stretch : *lineage)
        if (stretch.from <= lsn && lsn < stretch.to) return source_in(stretch, lsn);
    return std::optional<WalSource>{};
}

Result<Lsn> WalStore::end_lsn(const Id16& history, Lsn none) {
    WV_TRY(auto pack, index_.last_wal_pack(history));
    const std::vector<WalSource>& tails = tails_of(history);
    Lsn end = pack ? Lsn{pack->end_lsn()} : tails.empty() ? none : tails.front().start_lsn;
    // Packs between may have expired: what is still being written goes on behind them.
    WV_TRY(const Lsn expired, index_.retention().expired_until(history));
    for (const WalSource& tail : tails)
        if (tail.start_lsn == end || (end < tail.start_lsn && tail.start_lsn <= expired))
            end = tail.end_lsn;
    return end;
}

Result<std::int64_t> WalStore::covered_until_us(const Id16& history) {
    WV_TRY(std::int64_t until, index_.covered_until_us(history));
    for (const WalSource& tail : tails_of(history))
        until = std::max(until, tail.summary.covered_until_us());
    return until;
}

Result<std::int64_t> WalStore::largest_at_us(const Id16& history) {
    WV_TRY(std::int64_t largest, index_.largest_at_us(history));
    auto tails = tails_largest_at_us_.find(history);
    if (tails != tails_largest_at_us_.end()) largest = std::max(largest, tails->second);
    auto inherited = inherited_at_us_.find(history);
    if (inherited == inherited_at_us_.end()) {
        WV_TRY(const auto* lineage, stretches(history));
        std::int64_t before = 0;
        for (const Stretch& stretch : *lineage) {
            if (stretch.history == history) break;
            WV_TRY(std::int64_t at, largest_at_us_in(stretch));
            before = std::max(before, at);
        }
        inherited = inherited_at_us_.emplace(history, before).first;
    }
    return std::max(largest, inherited->second);
}

Result<> WalStore::require_coverage(const Id16& history, Lsn from, Lsn to) {
    WV_TRY(const auto* lineage, stretches(history));
    Lsn at = from;
    for (const Stretch& stretch : *lineage)
        if (stretch.from <= at && at < stretch.to && at < to) {
            WV_TRY(at, covered_until(stretch, at, std::min(to, stretch.to)));
        }
    if (at >= to) return {};
    return fail(Errc::gap, "WAL from " + to_string(at) + " to " + to_string(to) + " is not stored");
}

// The end of what is stored without a hole from `at` on, at most `to`.
Result<Lsn> WalStore::covered_until(const Stretch& stretch, Lsn at, Lsn to) {
    WV_CHECK(index_.each_wal_pack(stretch.history, at, false, [&](const pb::PackInfo& pack) {
        if (pack.start_lsn() > at.value) return false;
        at = std::max(at, Lsn{pack.end_lsn()});
        return at < to;
    }));
    for (const WalSource& tail : tails_of(stretch.history))
        if (tail.start_lsn <= at) at = std::max(at, tail.end_lsn);
    return std::min(at, to);
}

// The writer closes a tail while it is read here: it has become a pack, under another name.
Result<> WalStore::replace_closed_tail(const std::string& path) {
    WV_CHECK(replace_closed_tail_(path));
    for (const auto& [history, tails] : tails_)
        for (const WalSource& tail : tails)
            if (tail.reader->path() == path)
                return fail(Errc::corrupt, path + " cannot be read any more");
    return {};
}

Result<> WalStore::read(const Id16& history, Lsn from, Lsn to,
                        const std::function<Result<>(ByteSpan)>& sink) {
    ByteBuffer plain;
    while (from < to) {
        WV_TRY(auto source, source_at(history, from));
        if (!source) return missing(history, from);
        const PackReader& reader = *source->reader;
        const Lsn stop = std::min(to, source->end_lsn);
        for (int i = source->frame_at(from); i >= 0 && i < reader.frame_count() && from < stop;
             ++i) {
            Lsn start{reader.footer().frames(i).start_lsn()};
            auto read = reader.read_frame(store_, i, plain);
            const bool is_tail = reader.path().ends_with(".tail");
            if (!read && read.error().code == Errc::not_found && is_tail && replace_closed_tail_) {
                WV_CHECK(replace_closed_tail(reader.path()));
                break;  // its WAL is elsewhere, in frames of other sizes
            }
            if (!read && read.error().code == Errc::not_found && !is_tail)
                return fail(Errc::corrupt, "the pack " + reader.path() + " is missing",
                            "copy it back from another copy of this repository");
            WV_CHECK(std::move(read));
            if (start > from || start + plain.size() <= from)
                return fail(Errc::corrupt,
                            reader.path() + ": its frames do not cover " + to_string(from));
            std::uint64_t skip = from - start;
            std::uint64_t count = std::min<std::uint64_t>(plain.size() - skip, stop - from);
            WV_CHECK(sink(ByteSpan(plain).subspan(skip, count)));
            from = from + count;
        }
    }
    return {};
}

Result<Lsn> WalStore::decode_start(const Id16& history, Lsn lsn) {
    Lsn at = lsn;
    WV_TRY(auto behind, source_at(history, at));
    while (at.value > 0) {
        WV_TRY(auto source, source_at(history, Lsn{at.value - 1}));
        if (!source && behind) return stored_record_start(history, *behind, Lsn{at.value - 1});
        if (!source) return first_page_from(at);  // the history's start is one
        const auto& footer = source->reader->footer();
        for (int i = source->frame_at(Lsn{at.value - 1}); i >= 0; --i) {
            const pb::FrameEntry& frame = footer.frames(i);
            if (frame.record_start_lsn() != 0)
                return stored_record_start(history, *source, Lsn{frame.record_start_lsn()});
            at = Lsn{frame.start_lsn()};
        }
        behind = std::move(source);
    }
    return first_page_from(at);
}

// The record that a source begins within is not whole where what was before it is not there.
Result<Lsn> WalStore::stored_record_start(const Id16& history, const WalSource& source,
                                          Lsn record) {
    if (record >= source.start_lsn) return record;
    WV_TRY(auto before, source_at(history, record));
    return before ? record : first_page_from(source.start_lsn);
}

Result<> WalStore::decode(const Id16& history, const FileHeader& header, Lsn from, Lsn to,
                          const std::function<bool(const WalFinding&)>& sink) {
    WV_TRY(auto opened, index_.history(history));
    WalDecoderOptions options{.server_major = server_major_of(header.server_version_num),
                              .system_identifier = header.system_identifier,
                              .segment_bytes = header.segment_bytes,
                              .timeline = opened ? opened->timeline() : header.timeline};
    WV_TRY(WalDecoder decoder, WalDecoder::open(options, from));
    Findings findings;
    bool stopped = false;
    auto feed = [&](ByteSpan wal) -> Result<> {
        findings.clear();
        WV_CHECK(decoder.feed(wal, findings));
        for (const WalFinding& finding : findings)
            if (!stopped && !sink(finding)) stopped = true;
        if (stopped) return fail(Errc::cancelled, "");
        return {};
    };
    auto done = read(history, from, to, feed);
    if (!done && !stopped) return done;
    return {};
}

Result<WalStore::Findings> WalStore::transactions_in(const Id16& history, const WalSource& source,
                                                     int frame) {
    const std::string& path = source.reader->path();
    if (decoded_.history != history || decoded_.path != path || decoded_.frame != frame ||
        decoded_.end_lsn != source.end_lsn) {
        WV_TRY(Findings found, decode_transactions_in(history, source, frame));
        decoded_ = {history, path, frame, source.end_lsn, std::move(found)};
    }
    return decoded_.found;
}

Result<WalStore::Findings> WalStore::decode_transactions_in(const Id16& history,
                                                            const WalSource& source, int frame) {
    const pb::FrameEntry& entry = source.reader->footer().frames(frame);
    Lsn start{entry.start_lsn()};
    Lsn end = std::min(start + entry.plain_bytes(), source.end_lsn);
    Findings found;
    WV_TRY(Lsn from, stored_record_start(history, source, Lsn{entry.record_start_lsn()}));
    if (from >= end) return found;
    WV_CHECK(decode(
        history, source.reader->cipher().header(), from, end, [&](const WalFinding& finding) {
            if (is_transaction(finding) && finding.end_lsn > start && finding.end_lsn <= end)
                found.push_back(finding);
            return true;
        }));
    return found;
}

Result<> WalStore::scan(const Id16& history, Lsn from, Lsn to,
                        const std::function<bool(const WalFinding&)>& sink) {
    WV_TRY(Lsn begin, decode_start(history, from));
    WV_TRY(Lsn end, end_lsn(history, begin));
    WV_TRY(auto source, source_at(history, begin));
    if (!source || begin >= end) return begin >= end ? Result<>{} : missing(history, begin);
    // A record that starts before `to` may end behind it.
    return decode(history, source->reader->cipher().header(), begin, end,
                  [&](const WalFinding& finding) {
                      if (finding.start_lsn >= to) return false;
                      return finding.start_lsn < from || sink(finding);
                  });
}

Result<HistoryRecord> history_record(WalStore& wal, const pb::HistoryOpened& opened) {
    HistoryRecord record{.cluster = opened.cluster(),
                         .id = id_of(opened.history_id()),
                         .timeline = opened.timeline(),
                         .start_lsn = Lsn{opened.start_lsn()},
                         .cause = opened.cause(),
                         .reason = opened.reason(),
                         .fork_lsn = Lsn{opened.fork_lsn()}};
    if (!opened.parent_id().empty()) record.parent = id_of(opened.parent_id());
    WV_TRY(record.end_lsn, wal.end_lsn(record.id, record.start_lsn));
    WV_TRY(std::int64_t covered, wal.covered_until_us(record.id));
    WV_TRY(std::int64_t largest, wal.largest_at_us(record.id));
    record.last_commit_at = WallTime(Micros(largest));
    record.covered_until = WallTime(Micros(std::max(largest, covered)));
    return record;
}

}  // namespace walvault::storage
