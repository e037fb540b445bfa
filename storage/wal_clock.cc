// The commit clock of WalStore: which transactions end where, stretch by stretch of a lineage.
#include <algorithm>

#include "storage/wal_store.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kExactCountBytesMax = 16_MiB;

}  // namespace

// The sources of a stretch whose summary is wanted, in WAL order.
Result<std::vector<WalSource>> WalStore::sources_where(
    const Stretch& stretch, const std::function<bool(const pb::WalSummary&)>& wanted) {
    std::vector<pb::PackInfo> packs;
    WV_CHECK(
        index_.each_wal_pack(stretch.history, stretch.from, false, [&](const pb::PackInfo& pack) {
            if (pack.start_lsn() >= stretch.to.value) return false;
            if (wanted(pack.summary())) packs.push_back(pack);
            return true;
        }));
    std::vector<WalSource> sources;
    for (const pb::PackInfo& pack : packs) {
        WV_TRY(auto source, source_in(stretch, Lsn{pack.start_lsn()}));
        if (source) sources.push_back(std::move(*source));
    }
    for (const WalSource& tail : tails_of(stretch.history)) {
        if (tail.start_lsn >= stretch.to || !wanted(tail.summary)) continue;
        WV_TRY(auto source, source_in(stretch, tail.start_lsn));
        if (source) sources.push_back(std::move(*source));
    }
    return sources;
}

// Packs that lie wholly in the stretch tell by their summaries; the one that is cut is looked into.
Result<std::int64_t> WalStore::largest_at_us_in(const Stretch& stretch) {
    std::int64_t largest = 0;
    std::optional<Lsn> cut;
    WV_CHECK(
        index_.each_wal_pack(stretch.history, stretch.from, false, [&](const pb::PackInfo& pack) {
            if (pack.start_lsn() >= stretch.to.value) return false;
            if (pack.end_lsn() > stretch.to.value)
                cut = Lsn{pack.start_lsn()};
            else
                largest = std::max(largest, pack.summary().last_at_us());
            return true;
        }));
    std::vector<WalSource> sources;
    if (cut) {
        WV_TRY(auto source, source_in(stretch, *cut));
        if (source) sources.push_back(std::move(*source));
    }
    for (const WalSource& tail : tails_of(stretch.history)) {
        if (tail.start_lsn >= stretch.to) continue;
        WV_TRY(auto source, source_in(stretch, tail.start_lsn));
        if (source) sources.push_back(std::move(*source));
    }
    for (const WalSource& source : sources)
        for (int i = 0; i < source.frame_count(); ++i) {
            if (transaction_count(source.reader->footer().frames(i).summary()) == 0) continue;
            WV_TRY(Findings found, transactions_in(stretch.history, source, i));
            for (const WalFinding& finding : found)
                largest = std::max(largest, finding.at.time_since_epoch().count());
        }
    return largest;
}

Result<std::optional<WalFinding>> WalStore::first_transaction_after(const Id16& history,
                                                                    WallTime at) {
    WV_TRY(const auto* lineage, stretches(history));
    for (const Stretch& stretch : *lineage) {
        WV_TRY(auto found, first_transaction_after_in(history, stretch, at));
        if (found) return found;
    }
    return std::optional<WalFinding>{};
}

Result<std::optional<WalFinding>> WalStore::first_transaction_after_in(const Id16& history,
                                                                       const Stretch& stretch,
                                                                       WallTime at) {
    std::int64_t at_us = at.time_since_epoch().count();
    std::optional<WalSource> source;
    WV_TRY(auto pack, index_.first_pack_later_than(stretch.history, at_us));
    if (pack) {
        if (pack->start_lsn() >= stretch.to.value) return std::optional<WalFinding>{};
        WV_TRY(source, source_in(stretch, Lsn{pack->start_lsn()}));
    } else {
        for (const WalSource& tail : tails_of(stretch.history))
            if (!source && tail.start_lsn < stretch.to && transaction_count(tail.summary) > 0 &&
                tail.summary.last_at_us() > at_us) {
                WV_TRY(source, source_in(stretch, tail.start_lsn));
            }
    }
    if (!source) return std::optional<WalFinding>{};
    for (int i = 0; i < source->frame_count(); ++i) {
        const pb::WalSummary& summary = source->reader->footer().frames(i).summary();
        if (transaction_count(summary) == 0 || summary.last_at_us() <= at_us) continue;
        WV_TRY(Findings found, transactions_in(history, *source, i));
        for (WalFinding& finding : found)
            if (finding.at > at) return std::optional<WalFinding>(std::move(finding));
    }
    // Behind a cut lie transactions that are not of this lineage.
    if (source->is_cut) return std::optional<WalFinding>{};
    WV_TRY(bool behind_hole, begins_behind_hole(history, *source));
    if (behind_hole) return next_transaction_after(history, *source, at);
    return fail(Errc::corrupt,
                source->reader->path() + ": its summary names a transaction that is not in it");
}

Result<bool> WalStore::begins_behind_hole(const Id16& history, const WalSource& source) {
    WV_TRY(const auto* lineage, stretches(history));
    if (source.start_lsn <= lineage->front().from) return false;
    WV_TRY(auto before, source_at(history, Lsn{source.start_lsn.value - 1}));
    return !before;
}

// Where the summary of `source` told of a record whose beginning expired.
Result<std::optional<WalFinding>> WalStore::next_transaction_after(const Id16& history,
                                                                   const WalSource& source,
                                                                   WallTime at) {
    for (Lsn from = source.end_lsn;;) {
        WV_TRY(auto found, first_transaction_from(history, from));
        if (!found || found->at > at) return found;
        from = found->end_lsn;
    }
}

Result<std::optional<WalFinding>> WalStore::first_transaction_from(const Id16& history, Lsn lsn) {
    for (Lsn at = lsn;;) {
        WV_TRY(auto source, source_at(history, at));
        if (!source) return std::optional<WalFinding>{};
        if (transaction_count(source->summary) > 0) {
            for (int i = std::max(0, source->frame_at(at)); i < source->frame_count(); ++i) {
                if (transaction_count(source->reader->footer().frames(i).summary()) == 0) continue;
                WV_TRY(Findings found, transactions_in(history, *source, i));
                for (WalFinding& finding : found)
                    if (finding.start_lsn >= lsn)
                        return std::optional<WalFinding>(std::move(finding));
            }
        }
        // A record that begins in this source may end in the next one, which then tells of it.
        at = std::max(at, source->end_lsn);
    }
}

// Where to begin looking backwards for a record that starts before `lsn`: the frame of `at`, or a
// later one if the record that `lsn` lies in ends there.
Result<Lsn> WalStore::frame_of_record_before(const Id16& history, Lsn at, Lsn lsn) {
    Lsn next = at;
    for (bool first = true;; first = false) {
        WV_TRY(auto source, source_at(history, next));
        if (!source) return at;
        for (int i = std::max(0, source->frame_at(next)) + (first ? 1 : 0);
             i < source->frame_count(); ++i) {
            const pb::FrameEntry& frame = source->reader->footer().frames(i);
            if (frame.record_start_lsn() == 0) continue;
            return frame.record_start_lsn() < lsn.value ? Lsn{frame.start_lsn()} : at;
        }
        next = source->end_lsn;
    }
}

Result<std::optional<WalFinding>> WalStore::last_commit_before(const Id16& history, Lsn lsn) {
    Lsn at = lsn;
    WV_TRY(const auto* lineage, stretches(history));
    WV_TRY(Lsn end, end_lsn(history, lineage->back().from));
    if (at >= end) at = Lsn{end.value == 0 ? 0 : end.value - 1};
    WV_TRY(at, frame_of_record_before(history, at, lsn));
    for (;;) {
        WV_TRY(auto source, source_at(history, at));
        if (!source) return std::optional<WalFinding>{};
        if (source->summary.commit_count() > 0) {
            for (int i = source->frame_at(at); i >= 0; --i) {
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

// A frame tells of the commits whose records end in it, so that only the one in which `lsn` lies is
// decoded; and one that a lineage leaves in its middle, which tells of others too.
Result<bool> WalStore::has_commit_behind(const Id16& history, Lsn lsn) {
    WV_TRY(const auto* lineage, stretches(history));
    WV_TRY(Lsn at, end_lsn(history, lineage->back().from));
    while (at > lsn) {
        WV_TRY(auto source, source_at(history, Lsn{at.value - 1}));
        if (!source) return false;
        for (int i = source->frame_at(Lsn{at.value - 1}); i >= 0 && at > lsn; --i) {
            const pb::FrameEntry& frame = source->reader->footer().frames(i);
            at = Lsn{frame.start_lsn()};
            if (frame.summary().commit_count() == 0) continue;
            if (at >= lsn && !source->is_cut) return true;
            WV_TRY(const Findings found, transactions_in(history, *source, i));
            for (const WalFinding& finding : found)
                if (finding.kind == WalFinding::Kind::commit && finding.end_lsn > lsn) return true;
        }
        at = std::min(at, source->start_lsn);
    }
    return false;
}

Result<std::vector<WalFinding>> WalStore::find_xid(const Id16& history, Xid xid) {
    auto may_hold = [xid](const pb::WalSummary& summary) {
        return transaction_count(summary) > 0 && summary.min_xid() <= xid &&
               xid <= summary.max_xid();
    };
    WV_TRY(const auto* lineage, stretches(history));
    Findings matches;
    for (const Stretch& stretch : *lineage) {
        WV_TRY(auto sources, sources_where(stretch, may_hold));
        for (const WalSource& source : sources)
            for (int i = 0; i < source.frame_count(); ++i) {
                if (!may_hold(source.reader->footer().frames(i).summary())) continue;
                WV_TRY(Findings found, transactions_in(history, source, i));
                for (WalFinding& finding : found)
                    if (finding.xid == xid) matches.push_back(std::move(finding));
            }
    }
    return matches;
}

Result<std::uint64_t> WalStore::count_commits(const Id16& history, Lsn from, Lsn to) {
    std::uint64_t count = 0;
    if (to > from && to - from <= kExactCountBytesMax) {
        WV_CHECK(scan(history, from, to, [&](const WalFinding& finding) {
            if (finding.kind == WalFinding::Kind::commit) ++count;
            return true;
        }));
        return count;
    }
    WV_TRY(const auto* lineage, stretches(history));
    for (const Stretch& stretch : *lineage) {
        if (from >= stretch.to || to <= stretch.from) continue;
        WV_TRY(std::uint64_t part,
               count_commits_in(stretch, std::max(from, stretch.from), std::min(to, stretch.to)));
        count += part;
    }
    return count;
}

Result<std::uint64_t> WalStore::count_commits_in(const Stretch& stretch, Lsn from, Lsn to) {
    std::uint64_t count = 0;
    auto add = [&](const WalSource& source) {
        for (const pb::FrameEntry& frame : source.reader->footer().frames())
            if (frame.start_lsn() >= from.value && frame.start_lsn() < to.value)
                count += frame.summary().commit_count();
    };
    std::vector<pb::PackInfo> partial;
    WV_CHECK(index_.each_wal_pack(stretch.history, from, false, [&](const pb::PackInfo& pack) {
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
    for (const WalSource& tail : tails_of(stretch.history))
        add(tail);
    return count;
}

}  // namespace walvault::storage
