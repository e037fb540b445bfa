#include "agent/nearest_transactions.h"

#include <algorithm>

namespace walvault::agent {
namespace {

// A tail, and the packs whose numbers lie around the one that is looked for.
constexpr std::size_t kRangesMax = 3;

struct Range {
    Lsn from;
    Lsn to;
    std::uint64_t distance = 0;  // of the wanted number from the numbers in it
};

std::uint64_t distance_to(const pb::WalSummary& summary, Xid xid) {
    if (xid < summary.min_xid()) return summary.min_xid() - xid;
    if (xid > summary.max_xid()) return xid - summary.max_xid();
    return 0;
}

}  // namespace

Result<std::vector<WalFinding>> nearest_transactions(storage::RepositoryView& view,
                                                     const std::string& cluster,
                                                     const storage::HistoryRecord& history,
                                                     Xid xid) {
    WV_TRY(auto packs, view.packs(cluster));
    std::vector<Range> ranges;
    Lsn packed_to = history.start_lsn;
    for (const auto& pack : packs) {
        if (pack.kind() != pb::PACK_KIND_WAL ||
            std::string_view(pack.history_id()) != as_text(history.id))
            continue;
        packed_to = std::max(packed_to, Lsn{pack.end_lsn()});
        // An open tail has no footer yet and so no summary: it may hold anything.
        const bool is_tail = pack.footer_offset() == 0;
        if (!is_tail && pack.summary().commit_count() == 0) continue;
        ranges.push_back(Range{Lsn{pack.start_lsn()}, Lsn{pack.end_lsn()},
                               is_tail ? 0 : distance_to(pack.summary(), xid)});
    }
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.distance < b.distance; });
    if (ranges.size() > kRangesMax) ranges.resize(kRangesMax);
    if (packed_to < history.end_lsn) ranges.push_back(Range{packed_to, history.end_lsn, 0});

    std::optional<WalFinding> below;
    std::optional<WalFinding> above;
    for (const Range& range : ranges) {
        WV_CHECK(view.scan(history.id, range.from, range.to, [&](const WalFinding& found) {
            if (found.kind != WalFinding::Kind::commit || found.xid == 0) return true;
            if (found.xid < xid && (!below || found.xid > below->xid)) below = found;
            if (found.xid > xid && (!above || found.xid < above->xid)) above = found;
            return true;
        }));
    }
    std::vector<WalFinding> nearest;
    if (below) nearest.push_back(std::move(*below));
    if (above) nearest.push_back(std::move(*above));
    return nearest;
}

}  // namespace walvault::agent
