#include "agent/restore_window.h"

#include <algorithm>

#include "storage/lineage.h"

namespace walvault::agent {

using storage::HistoryRecord;
using storage::RepositoryView;

namespace {

// The oldest moment whose state a base proves. A transaction before its stop whose WAL is stored
// without a hole up to the base shows the state from its own time on; else nothing earlier than the
// base's start.
Result<WallTime> window_start(RepositoryView& view, const HistoryRecord& history,
                              const pb::BackupInfo& oldest) {
    const WallTime started = time_of(oldest.started_at_us());
    auto looked = view.last_commit_before(history.id, stop_of(oldest));
    // What a base shows of the time before it is not worth a thaw.
    if (!looked && looked.error().code == Errc::archived) return started;
    WV_TRY(auto last, std::move(looked));
    if (!last) return started;
    if (last->start_lsn < start_of(oldest)) {
        auto covered = view.require_coverage(history.id, last->start_lsn, start_of(oldest));
        if (!covered && covered.error().code != Errc::gap) return fail(covered.error());
        if (!covered) return started;
    }
    return last->at;
}

// What retention left of a lineage may have holes: a base before the last of them leads no further
// than to itself.
Result<> part_single_bases(RepositoryView& view, Window& window) {
    Lsn expired;
    WV_TRY(auto stretches, view.lineage(window.history.id));
    for (const storage::Stretch& stretch : stretches) {
        WV_TRY(Lsn until, view.expired_until(stretch.history));
        expired = std::max(expired, std::min(until, stretch.to));
    }
    auto whole = window.bases.begin();
    for (; whole != window.bases.end() && start_of(*whole) < expired; ++whole) {
        auto covered = view.require_coverage(window.history.id, start_of(*whole), expired);
        if (covered) break;
        if (covered.error().code != Errc::gap) return covered;
    }
    window.single_bases.assign(window.bases.begin(), whole);
    window.bases.erase(window.bases.begin(), whole);
    return {};
}

// The first pack of the lineage with a transaction later than `to`, as the packs' summaries tell.
Result<std::optional<pb::PackInfo>> first_pack_after(RepositoryView& view,
                                                     const HistoryRecord& history, WallTime to) {
    WV_TRY(const auto stretches, view.lineage(history.id));
    WV_TRY(const auto packs, view.packs(history.cluster));
    std::optional<pb::PackInfo> first;
    for (const pb::PackInfo& pack : packs) {
        if (pack.kind() != pb::PACK_KIND_WAL || time_of(pack.summary().last_at_us()) <= to)
            continue;
        const bool is_ours =
            std::ranges::any_of(stretches, [&pack](const storage::Stretch& stretch) {
                return as_text(stretch.history) == pack.history_id() &&
                       pack.start_lsn() < stretch.to.value && pack.end_lsn() > stretch.from.value;
            });
        if (is_ours && (!first || pack.start_lsn() < first->start_lsn())) first = pack;
    }
    return first;
}

// What a hold keeps of bases that would else be single ones: those of `window` from the last one
// before the held moments on. Nothing where it keeps none, or its WAL has a hole.
Result<std::optional<Window>> held_window(RepositoryView& view, const Window& window,
                                          const storage::HoldRecord& hold) {
    std::optional<Window> none;
    if (!hold.from || !hold.to || window.single_bases.empty()) return none;
    // To tell of a window is not worth a thaw: where only an archive has the next transaction, the
    // pack that it is in is enough, and a base that was ready later is not counted.
    const auto next = view.first_transaction_after(window.history.id, *hold.to);
    const bool is_archived = !next && next.error().code == Errc::archived;
    if (!next && !is_archived) return fail(next.error());
    Window held;
    held.history = window.history;
    held.hold_id = hold.id;
    if (is_archived) {
        WV_TRY(const auto pack, first_pack_after(view, window.history, *hold.to));
        if (!pack) return fail(next.error());
        held.end_lsn = Lsn{pack->end_lsn()};
    } else {
        held.end_lsn = *next ? (*next)->start_lsn : window.history.end_lsn;
    }
    for (const pb::BackupInfo& base : window.single_bases) {
        if (is_archived ? time_of(base.stopped_at_us()) > *hold.to : stop_of(base) > held.end_lsn)
            break;
        if (time_of(base.stopped_at_us()) <= *hold.from) held.bases.clear();
        held.bases.push_back(base);
    }
    if (held.bases.empty()) return none;
    auto covered =
        view.require_coverage(held.history.id, start_of(held.bases.front()), held.end_lsn);
    if (!covered && covered.error().code == Errc::gap) return none;
    if (!covered) return fail(covered.error());
    held.until =
        std::min(*hold.to, std::max(held.history.covered_until, held.history.last_commit_at));
    return std::optional<Window>(std::move(held));
}

// Without `from`, and `until` only where a hold says it.
Result<std::vector<Window>> find_windows(RepositoryView& view, const std::string& cluster,
                                         bool with_single_bases) {
    WV_TRY(auto histories, view.histories(cluster));
    WV_TRY(auto backups, view.backups(cluster));
    WV_TRY(auto current, view.current_history(cluster));
    WV_TRY(auto holds, view.holds(cluster));
    if (current)
        std::stable_partition(histories.begin(), histories.end(),
                              [&](const HistoryRecord& history) { return history.id != *current; });
    std::vector<Window> windows;
    for (const auto& history : histories) {
        Window window;
        window.history = history;
        window.bases = storage::bases_on_path(history, histories, backups);
        window.end_lsn = history.end_lsn;
        WV_CHECK(part_single_bases(view, window));
        for (const auto& hold : holds) {
            WV_TRY(auto held, held_window(view, window, hold));
            if (held) windows.push_back(std::move(*held));
        }
        if (window.bases.empty() && (window.single_bases.empty() || !with_single_bases)) continue;
        windows.push_back(std::move(window));
    }
    return windows;
}

}  // namespace

Result<std::vector<Window>> restore_windows(RepositoryView& view, const std::string& cluster,
                                            bool with_single_bases) {
    WV_TRY(auto windows, find_windows(view, cluster, with_single_bases));
    for (Window& window : windows) {
        const HistoryRecord& history = window.history;
        if (!window.bases.empty()) {
            WV_TRY(window.from, window_start(view, history, window.bases.front()));
        }
        if (window.hold_id.empty())
            window.until = std::max({history.covered_until, history.last_commit_at, window.from});
    }
    return windows;
}

Result<std::vector<LsnWindow>> restore_lsn_windows(RepositoryView& view,
                                                   const std::string& cluster) {
    WV_TRY(const auto windows, find_windows(view, cluster, false));
    std::vector<LsnWindow> found;
    for (const Window& window : windows)
        if (!window.bases.empty()) found.push_back({stop_of(window.bases.front()), window.end_lsn});
    return found;
}

}  // namespace walvault::agent
