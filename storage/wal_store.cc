#include "storage/wal_store.h"

#include <algorithm>

#include "proto/server_version.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kRecentSourcesMax = 8;

std::uint64_t transaction_count(const pb::WalSummary& summary) {
    return summary.commit_count() + summary.abort_count();
}

Id16 id_of(const std::string& bytes) {
    Id16 id{};
    std::copy_n(as_bytes(bytes).begin(), std::min(bytes.size(), id.size()), id.begin());
    return id;
}

tl::unexpected<Error> missing(const Id16& history, Lsn from) {
    return fail(Errc::gap, "WAL of history " + to_hex(history) + " is not stored from " +
                               to_string(from) + " on");
}

}  // namespace

const std::vector<WalSource>& WalStore::tails_of(const Id16& history) const {
    static const std::vector<WalSource> none;
    auto found = tails_.find(history);
    return found == tails_.end() ? none : found->second;
}

void WalStore::set_tails(std::vector<ScannedTail> tails) {
    tails_.clear();
    tails_largest_at_us_.clear();
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

Result<ScannedTail> WalStore::scan_continuation(const pb::TailOpened& opened,
                                                std::uint32_t witness) {
    Id16 history = id_of(opened.history_id());
    Lsn start{opened.start_lsn()};
    TailScanOptions options;
    WV_TRY(options.largest_at_us, largest_at_us(history));
    options.decode_from = start;
    // The first tail of a history begins at a page boundary; later ones continue what is stored.
    WV_TRY(auto before, source_at(history, Lsn{start.value - 1}));
    if (before) {
        WV_TRY(options.decode_from, decode_start(history, start));
        options.prime = [this, history, start, from = options.decode_from](WalTracker& tracker) {
            return read(history, from, start, [&](ByteSpan wal) { return tracker.prime(wal); });
        };
    }
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

Result<std::optional<WalSource>> WalStore::source_at(const Id16& history, Lsn lsn) {
    for (const WalSource& tail : tails_of(history))
        if (tail.start_lsn <= lsn && lsn < tail.end_lsn) return std::optional<WalSource>(tail);
    WV_TRY(auto pack, index_.wal_pack_at(history, lsn));
    if (!pack) return std::optional<WalSource>{};
    WV_TRY(WalSource source, open_source(*pack));
    return std::optional<WalSource>(std::move(source));
}

Result<Lsn> WalStore::end_lsn(const Id16& history, Lsn none) {
    WV_TRY(auto pack, index_.last_wal_pack(history));
    const std::vector<WalSource>& tails = tails_of(history);
    Lsn end = pack ? Lsn{pack->end_lsn()} : tails.empty() ? none : tails.front().start_lsn;
    for (const WalSource& tail : tails)
        if (tail.start_lsn == end) end = tail.end_lsn;
    return end;
}

Result<pb::WalSummary> WalStore::last_summary(const Id16& history) {
    pb::WalSummary summary;
    WV_TRY(auto pack, index_.last_wal_pack(history));
    if (pack) summary = pack->summary();
    for (const WalSource& tail : tails_of(history))
        merge_summary(summary, tail.summary);
    return summary;
}

Result<std::int64_t> WalStore::largest_at_us(const Id16& history) {
    WV_TRY(std::int64_t largest, index_.largest_at_us(history));
    auto tails = tails_largest_at_us_.find(history);
    return tails == tails_largest_at_us_.end() ? largest : std::max(largest, tails->second);
}

Result<> WalStore::require_coverage(const Id16& history, Lsn from, Lsn to) {
    Lsn at = from;
    WV_CHECK(index_.each_wal_pack(history, from, false, [&](const pb::PackInfo& pack) {
        if (pack.start_lsn() > at.value) return false;
        at = std::max(at, Lsn{pack.end_lsn()});
        return at < to;
    }));
    for (const WalSource& tail : tails_of(history))
        if (tail.start_lsn <= at) at = std::max(at, tail.end_lsn);
    if (at >= to) return {};
    return fail(Errc::gap, "WAL from " + to_string(at) + " to " + to_string(to) + " is not stored");
}

int WalStore::frame_at(const WalSource& source, Lsn lsn) {
    const auto& frames = source.reader->footer().frames();
    auto after = std::upper_bound(
        frames.begin(), frames.end(), lsn.value,
        [](std::uint64_t value, const pb::FrameEntry& frame) { return value < frame.start_lsn(); });
    return static_cast<int>(after - frames.begin()) - 1;
}

Result<> WalStore::read(const Id16& history, Lsn from, Lsn to,
                        const std::function<Result<>(ByteSpan)>& sink) {
    ByteBuffer plain;
    while (from < to) {
        WV_TRY(auto source, source_at(history, from));
        if (!source) return missing(history, from);
        const PackReader& reader = *source->reader;
        for (int i = frame_at(*source, from); i >= 0 && i < reader.frame_count() && from < to;
             ++i) {
            Lsn start{reader.footer().frames(i).start_lsn()};
            WV_CHECK(reader.read_frame(store_, i, plain));
            if (start > from || start + plain.size() <= from)
                return fail(Errc::corrupt,
                            reader.path() + ": its frames do not cover " + to_string(from));
            std::uint64_t skip = from - start;
            std::uint64_t count = std::min<std::uint64_t>(plain.size() - skip, to - from);
            WV_CHECK(sink(ByteSpan(plain).subspan(skip, count)));
            from = from + count;
        }
    }
    return {};
}

Result<Lsn> WalStore::decode_start(const Id16& history, Lsn lsn) {
    Lsn at = lsn;
    while (at.value > 0) {
        WV_TRY(auto source, source_at(history, Lsn{at.value - 1}));
        if (!source) return at;  // the history's start: a page boundary
        const auto& footer = source->reader->footer();
        for (int i = frame_at(*source, Lsn{at.value - 1}); i >= 0; --i) {
            const pb::FrameEntry& frame = footer.frames(i);
            if (frame.record_start_lsn() != 0) return Lsn{frame.record_start_lsn()};
            at = Lsn{frame.start_lsn()};
        }
    }
    return at;
}

Result<> WalStore::decode(const Id16& history, const FileHeader& header, Lsn from, Lsn to,
                          const std::function<bool(const WalFinding&)>& sink) {
    WalDecoderOptions options{.server_major = server_major_of(header.server_version_num),
                              .system_identifier = header.system_identifier,
                              .segment_bytes = header.segment_bytes,
                              .timeline = header.timeline};
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
    const pb::FrameEntry& entry = source.reader->footer().frames(frame);
    Lsn start{entry.start_lsn()};
    Lsn end = start + entry.plain_bytes();
    Findings found;
    WV_CHECK(decode(history, source.reader->cipher().header(), Lsn{entry.record_start_lsn()}, end,
                    [&](const WalFinding& finding) {
                        if (is_transaction(finding) && finding.end_lsn > start &&
                            finding.end_lsn <= end)
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
    if (!source) return begin >= end ? Result<>{} : missing(history, begin);
    // A record that starts before `to` may end behind it.
    return decode(history, source->reader->cipher().header(), begin, end,
                  [&](const WalFinding& finding) {
                      if (finding.start_lsn >= to) return false;
                      return finding.start_lsn < from || sink(finding);
                  });
}

Result<std::optional<WalFinding>> WalStore::first_transaction_after(const Id16& history,
                                                                    WallTime at) {
    std::int64_t at_us = at.time_since_epoch().count();
    std::optional<WalSource> source;
    WV_TRY(auto pack, index_.first_pack_later_than(history, at_us));
    if (pack) {
        WV_TRY(source, open_source(*pack));
    } else {
        for (const WalSource& tail : tails_of(history))
            if (!source && transaction_count(tail.summary) > 0 && tail.summary.last_at_us() > at_us)
                source = tail;
    }
    if (!source) return std::optional<WalFinding>{};
    for (int i = 0; i < source->reader->frame_count(); ++i) {
        const pb::WalSummary& summary = source->reader->footer().frames(i).summary();
        if (transaction_count(summary) == 0 || summary.last_at_us() <= at_us) continue;
        WV_TRY(Findings found, transactions_in(history, *source, i));
        for (WalFinding& finding : found)
            if (finding.at > at) return std::optional<WalFinding>(std::move(finding));
    }
    return fail(Errc::corrupt,
                source->reader->path() + ": its summary names a transaction that is not in it");
}

Result<std::optional<WalFinding>> WalStore::first_transaction_from(const Id16& history, Lsn lsn) {
    for (;;) {
        WV_TRY(auto source, source_at(history, lsn));
        if (!source) return std::optional<WalFinding>{};
        if (transaction_count(source->summary) > 0) {
            for (int i = std::max(0, frame_at(*source, lsn)); i < source->reader->frame_count();
                 ++i) {
                if (transaction_count(source->reader->footer().frames(i).summary()) == 0) continue;
                WV_TRY(Findings found, transactions_in(history, *source, i));
                for (WalFinding& finding : found)
                    if (finding.start_lsn >= lsn)
                        return std::optional<WalFinding>(std::move(finding));
            }
        }
        // Positions in later sources are all behind `lsn`, so the comparison above stays right.
        lsn = std::max(lsn, source->end_lsn);
    }
}

// Where to begin looking backwards for a record that starts before `lsn`: the frame of `at`, or a
// later one if the record that `lsn` lies in ends there.
Result<Lsn> WalStore::frame_of_record_before(const Id16& history, Lsn at, Lsn lsn) {
    Lsn next = at;
    for (bool first = true;; first = false) {
        WV_TRY(auto source, source_at(history, next));
        if (!source) return at;
        for (int i = std::max(0, frame_at(*source, next)) + (first ? 1 : 0);
             i < source->reader->frame_count(); ++i) {
            const pb::FrameEntry& frame = source->reader->footer().frames(i);
            if (frame.record_start_lsn() == 0) continue;
            return frame.record_start_lsn() < lsn.value ? Lsn{frame.start_lsn()} : at;
        }
        next = source->end_lsn;
    }
}

Result<std::optional<WalFinding>> WalStore::last_commit_before(const Id16& history, Lsn lsn) {
    Lsn at = lsn;
    WV_TRY(Lsn end, end_lsn(history, Lsn{}));
    if (at >= end) at = Lsn{end.value == 0 ? 0 : end.value - 1};
    WV_TRY(at, frame_of_record_before(history, at, lsn));
    for (;;) {
        WV_TRY(auto source, source_at(history, at));
        if (!source) return std::optional<WalFinding>{};
        if (source->summary.commit_count() > 0) {
            for (int i = frame_at(*source, at); i >= 0; --i) {
                if (source->reader->footer().frames(i).summary().commit_count() == 0) continue;
                WV_TRY(Findings found, transactions_in(history, *source, i));
                for (auto it = found.rbegin(); it != found.rend(); ++it)
                    if (it->kind == WalFinding::Kind::commit && it->start_lsn < lsn)
                        return std::optional<WalFinding>(std::move(*it));
            }
        }
        if (source->start_lsn.value == 0) return std::optional<WalFinding>{};
        at = Lsn{source->start_lsn.value - 1};
    }
}

Result<std::vector<WalFinding>> WalStore::find_xid(const Id16& history, Xid xid) {
    auto may_hold = [xid](const pb::WalSummary& summary) {
        return transaction_count(summary) > 0 && summary.min_xid() <= xid &&
               xid <= summary.max_xid();
    };
    std::vector<pb::PackInfo> packs;
    WV_CHECK(index_.each_wal_pack(history, Lsn{}, false, [&](const pb::PackInfo& pack) {
        if (may_hold(pack.summary())) packs.push_back(pack);
        return true;
    }));
    Findings matches;
    auto look_in = [&](const WalSource& source) -> Result<> {
        for (int i = 0; i < source.reader->frame_count(); ++i) {
            if (!may_hold(source.reader->footer().frames(i).summary())) continue;
            WV_TRY(Findings found, transactions_in(history, source, i));
            for (WalFinding& finding : found)
                if (finding.xid == xid) matches.push_back(std::move(finding));
        }
        return {};
    };
    for (const pb::PackInfo& pack : packs) {
        WV_TRY(WalSource source, open_source(pack));
        WV_CHECK(look_in(source));
    }
    for (const WalSource& tail : tails_of(history))
        if (may_hold(tail.summary)) WV_CHECK(look_in(tail));
    return matches;
}

Result<std::uint64_t> WalStore::count_commits(const Id16& history, Lsn from, Lsn to) {
    std::uint64_t count = 0;
    auto add = [&](const WalSource& source) {
        for (const pb::FrameEntry& frame : source.reader->footer().frames())
            if (frame.start_lsn() >= from.value && frame.start_lsn() < to.value)
                count += frame.summary().commit_count();
    };
    std::vector<pb::PackInfo> partial;
    WV_CHECK(index_.each_wal_pack(history, from, false, [&](const pb::PackInfo& pack) {
        if (pack.start_lsn() >= to.value) return false;
        if (pack.start_lsn() >= from.value && pack.end_lsn() <= to.value)
            count += pack.summary().commit_count();
        else
            partial.push_back(pack);
        return true;
    }));
    for (const pb::PackInfo& pack : partial) {
        WV_TRY(WalSource source, open_source(pack));
        add(source);
    }
    for (const WalSource& tail : tails_of(history))
        add(tail);
    return count;
}

}  // namespace walvault::storage
