#include "agent/stop_point.h"

#include <algorithm>

#include "agent/render.h"
#include "agent/stop_point_errors.h"
#include "storage/lineage.h"
#include "storage/wal_summary.h"

namespace walvault::agent {
namespace {

using storage::HistoryRecord;
using storage::RepositoryView;

constexpr Micros kOneMicrosecond{1};
// A mark names the first stamp behind a step; of transactions that ran at once, the next may be
// earlier.
constexpr Micros kOutOfOrder{storage::kClockStepMicros};
constexpr std::uint64_t kExactCountBytesMax = 16_MiB;
// The record is 40 bytes, and a page header may lie in it.
constexpr std::uint64_t kBackupEndBytesMax = 128;
// WAL records are aligned to 8 bytes: where the next one may start.
Lsn next_record_lsn(Lsn end) { return Lsn{(end.value + 7) / 8 * 8}; }

// What a target means in one history, before a base is looked for.
struct Cut {
    Lsn lsn;                         // records that start before it are kept
    std::optional<WalFinding> keep;  // a record that replay must not stop short of
    std::optional<WallTime> moment;  // time targets: the state at this moment must be proven
};

class Resolver {
public:
    Resolver(RepositoryView& view, const Target& target, const ResolveContext& context,
             std::vector<Window> windows)
        : view_(view),
          target_(target),
          context_(context),
          windows_(std::move(windows)),
          say_{view_, target_, context_, windows_} {}

    Result<StopPoint> resolve() {
        switch (target_.kind) {
            case Target::Kind::latest:
                return resolve_latest();
            case Target::Kind::earliest:
                return at_base(windows_.front(), windows_.front().bases.front());
            case Target::Kind::immediate:
                return at_base(windows_.back(), windows_.back().bases.back());
            case Target::Kind::time:
                return resolve_time();
            case Target::Kind::lsn:
                return resolve_lsn();
            case Target::Kind::xid:
                return resolve_xid();
            case Target::Kind::name:
                return resolve_name();
            case Target::Kind::backup:
                return resolve_backup();
        }
        return fail(Errc::invalid_argument, "unknown kind of target");
    }

private:
    // The newest there is, or nothing: behind a gap without a base, and before damage, there is
    // more that cannot be restored.
    Result<StopPoint> resolve_latest() {
        const Window& window = windows_.back();
        if (window.history.damage) return fail(*window.history.damage);
        WV_TRY(auto current, view_.current_history(context_.cluster));
        const bool chosen = context_.timeline || !context_.history.empty();
        if (!chosen && current && *current != window.history.id)
            return say_.latest_has_no_base(window);
        return finish(window, Cut{.lsn = window.history.end_lsn, .keep = {}, .moment = {}});
    }

    Result<StopPoint> resolve_time() {
        const WallTime moment = target_.before ? target_.at - kOneMicrosecond : target_.at;
        for (auto window = windows_.rbegin(); window != windows_.rend(); ++window)
            if (moment >= window->from && !(is_held(*window) && moment > window->until))
                return cut_by_time(*window, moment);
        return say_.before_window();
    }

    Result<StopPoint> cut_by_time(const Window& window, WallTime moment) {
        WV_CHECK(refuse_gap_at(window, moment));
        WV_TRY(auto next, view_.first_transaction_after(window.history.id, moment));
        if (!next && moment > context_.now) return say_.in_future(window);
        if (!next && moment > window.until) return say_.after_window(window);
        Cut cut{
            .lsn = next ? next->start_lsn : window.history.end_lsn, .keep = {}, .moment = moment};
        WV_CHECK(refuse_clock_step(window, moment, cut.lsn));
        return finish(window, cut);
    }

    Result<> refuse_gap_at(const Window& window, WallTime moment) {
        WV_TRY(auto gaps, view_.gaps(context_.cluster));
        for (const auto& gap : gaps)
            if (gap.history_id == window.history.id && gap.from_at < moment && moment < gap.to_at)
                return say_.in_gap(window, gap);
        return {};
    }

    // Where the clock was set back, a moment lies both before and after the step: say which ones.
    Result<> refuse_clock_step(const Window& window, WallTime moment, Lsn cut) {
        WV_TRY(auto steps, view_.clock_steps(window.history.id));
        std::vector<Lsn> cuts;
        for (const auto& step : steps) {
            if (moment <= step.stepped_to - kOutOfOrder || moment >= step.stepped_from) continue;
            // Up to the cut behind the step before, nothing is later than `moment`: it is this
            // one's too.
            if (!cuts.empty() && step.at_lsn <= cuts.back()) continue;
            WV_TRY(Lsn other, cut_after_step(window, step.at_lsn, moment));
            cuts.push_back(other);
        }
        cuts.push_back(cut);
        std::sort(cuts.begin(), cuts.end());
        cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
        if (cuts.size() == 1) return {};
        return say_.clock_step(window, cuts);
    }

    Result<Lsn> cut_after_step(const Window& window, Lsn from, WallTime moment) {
        Lsn cut = window.history.end_lsn;
        WV_CHECK(view_.scan(
            window.history.id, from, window.history.end_lsn, [&](const WalFinding& found) {
                const bool transaction =
                    found.kind == WalFinding::Kind::commit || found.kind == WalFinding::Kind::abort;
                if (!transaction || found.at <= moment) return true;
                cut = found.start_lsn;
                return false;
            }));
        return cut;
    }

    Result<StopPoint> resolve_lsn() {
        const Lsn cut = target_.before ? target_.lsn : target_.lsn + 1;
        for (auto window = windows_.rbegin(); window != windows_.rend(); ++window) {
            if (cut < stop_of(window->bases.front())) continue;
            if (is_held(*window) && cut > window->end_lsn) continue;
            if (cut > window->history.end_lsn) return say_.after_history_end(*window, cut);
            return finish(*window, Cut{.lsn = cut, .keep = {}, .moment = {}});
        }
        return say_.before_window();
    }

    Result<StopPoint> resolve_xid() {
        bool aborted = false;
        bool too_old = false;
        for (auto window = windows_.rbegin(); window != windows_.rend(); ++window) {
            WV_TRY(auto found, view_.find_xid(window->history.id, target_.xid));
            std::vector<WalFinding> commits;
            for (auto& finding : found) {
                if (finding.kind != WalFinding::Kind::commit)
                    aborted = true;
                else if (!is_in(*window, finding.start_lsn))
                    too_old = true;
                else
                    commits.push_back(std::move(finding));
            }
            if (commits.size() > 1) return say_.several(commits);
            if (commits.size() == 1) return finish(*window, cut_at(commits.front()));
        }
        if (too_old) return say_.before_window();
        return say_.no_such_transaction(aborted);
    }

    // What is older than a window's first base has no meaning any more, and so is no second one.
    static bool is_in(const Window& window, Lsn lsn) {
        return lsn >= stop_of(window.bases.front()) && (!is_held(window) || lsn < window.end_lsn);
    }
    static bool is_held(const Window& window) { return !window.hold_id.empty(); }

    Cut cut_at(const WalFinding& record) const {
        if (target_.before) return Cut{.lsn = record.start_lsn, .keep = {}, .moment = {}};
        return Cut{.lsn = next_record_lsn(record.end_lsn), .keep = record, .moment = {}};
    }

    Result<StopPoint> resolve_name() {
        bool too_old = false;
        std::vector<storage::MarkRecord> all;
        for (auto window = windows_.rbegin(); window != windows_.rend(); ++window) {
            WV_TRY(auto marks, view_.lineage_marks(window->history.id, WallTime{}, WallTime{},
                                                   {pb::MarkEntry::RESTORE_POINT}));
            std::vector<WalFinding> points;
            for (const auto& mark : marks) {
                all.push_back(mark);
                if (mark.mark.name() != target_.name) continue;
                if (is_in(*window, Lsn{mark.mark.start_lsn()}))
                    points.push_back(finding_of(mark.mark));
                else
                    too_old = true;
            }
            if (points.size() > 1) return say_.several(points);
            if (points.size() == 1) return finish(*window, cut_at(points.front()));
        }
        if (too_old) return say_.before_window();
        return say_.no_such_name(all);
    }

    static WalFinding finding_of(const pb::MarkEntry& mark) {
        WalFinding finding;
        finding.kind = mark.kind() == pb::MarkEntry::PREPARED ? WalFinding::Kind::prepare
                                                              : WalFinding::Kind::restore_point;
        finding.start_lsn = Lsn{mark.start_lsn()};
        finding.end_lsn = Lsn{mark.end_lsn()};
        finding.xid = mark.xid();
        finding.at = time_of(mark.at_us());
        finding.name = mark.name();
        return finding;
    }

    Result<StopPoint> resolve_backup() {
        for (auto window = windows_.rbegin(); window != windows_.rend(); ++window)
            for (const auto* bases : {&window->bases, &window->single_bases})
                for (const auto& base : *bases)
                    if (base.backup_id() == target_.name) return at_base(*window, base);
        return say_.no_such_backup();
    }

    Result<StopPoint> at_base(const Window& window, const pb::BackupInfo& base) {
        StopPoint stop = begin(window, base, stop_of(base));
        WV_TRY(stop.last_kept, view_.last_commit_before(window.history.id, stop.cut_lsn));
        return complete(window, std::move(stop),
                        Cut{.lsn = stop_of(base), .keep = {}, .moment = {}});
    }

    StopPoint begin(const Window& window, const pb::BackupInfo& base, Lsn cut) {
        StopPoint stop;
        stop.target = target_;
        stop.history = window.history;
        stop.base = base;
        stop.cut_lsn = cut;
        return stop;
    }

    Result<StopPoint> finish(const Window& window, const Cut& cut) {
        auto base =
            std::find_if(window.bases.rbegin(), window.bases.rend(),
                         [&](const pb::BackupInfo& each) { return stop_of(each) <= cut.lsn; });
        if (base == window.bases.rend()) return say_.before_window();
        StopPoint stop = begin(window, *base, cut.lsn);
        WV_TRY(stop.last_kept, view_.last_commit_before(window.history.id, cut.lsn));
        if (cut.moment) WV_CHECK(require_state_known(window, stop, *cut.moment));
        return complete(window, std::move(stop), cut);
    }

    // A base shows the state at its own stop. For an earlier moment, the WAL between the last
    // transaction before that moment and the base must be whole, or something in between may be
    // unknown.
    Result<> require_state_known(const Window& window, const StopPoint& stop, WallTime moment) {
        if (moment >= time_of(stop.base.started_at_us())) return {};
        std::optional<Lsn> known_from;
        if (stop.last_kept) known_from = stop.last_kept->start_lsn;
        // Nor is anything unknown where the WAL is whole from an older base on, begun before it.
        for (const pb::BackupInfo& each : window.bases)
            if (time_of(each.started_at_us()) <= moment && stop_of(each) <= stop.cut_lsn)
                known_from = std::max(known_from.value_or(Lsn{}), start_of(each));
        if (!known_from) return say_.before_window();
        if (*known_from >= start_of(stop.base)) return {};
        return require_covered(window, *known_from, start_of(stop.base));
    }

    Result<> require_covered(const Window& window, Lsn from, Lsn to) {
        auto covered = view_.require_coverage(window.history.id, from, to);
        if (covered) return {};
        if (covered.error().code != Errc::gap) return fail(covered.error());
        return say_.missing_wal(window, from, to, covered.error());
    }

    Result<StopPoint> complete(const Window& window, StopPoint stop, const Cut& cut) {
        const Lsn base_stop = stop_of(stop.base);
        WV_TRY(auto keep, last_needed(stop, cut));
        WV_TRY(std::uint64_t segment_bytes, segment_bytes_of_cluster());
        stop.wal_to_lsn = base_stop;
        if (keep && keep->start_lsn >= base_stop) {
            stop.recovery_lsn = keep->start_lsn;
            stop.wal_to_lsn = std::max(base_stop, keep->end_lsn);
        } else {
            WV_CHECK(stop_at_consistency(stop, segment_bytes));
        }
        stop.wal_from_lsn = start_of(stop.base).round_down(segment_bytes);
        WV_CHECK(refuse_barrier(window, stop));
        const Lsn proven_to = std::max(stop.wal_to_lsn, std::min(cut.lsn, window.history.end_lsn));
        WV_CHECK(require_covered(window, stop.wal_from_lsn, proven_to));
        WV_CHECK(forget_unconnected(window, stop));
        if (cut.lsn >= window.history.end_lsn) return stop;
        auto told = tell_left_out(window, stop, cut);
        // It is not needed for a restore, and not worth a thaw.
        if (!told && told.error().code != Errc::archived) return fail(told.error());
        stop.left_out_is_known = told.has_value();
        return stop;
    }

    Result<> tell_left_out(const Window& window, StopPoint& stop, const Cut& cut) {
        WV_TRY(stop.first_left_out, view_.first_transaction_from(window.history.id, cut.lsn));
        if (!stop.first_left_out) return {};
        WV_TRY(stop.left_out_commits,
               count_left_out(window.history, stop.first_left_out->start_lsn));
        return {};
    }

    // Behind a single base, WAL that expired is left out too: only what is stored counts.
    Result<std::uint64_t> count_left_out(const HistoryRecord& history, Lsn from) {
        auto count = count_transactions(history, from);
        if (count || count.error().code != Errc::gap) return count;
        return view_.count_commits(history.id, from, history.end_lsn);
    }

    // Exact where little WAL follows, from summaries where it is much.
    Result<std::uint64_t> count_transactions(const HistoryRecord& history, Lsn from) {
        if (history.end_lsn - from > kExactCountBytesMax)
            return view_.count_commits(history.id, from, history.end_lsn);
        std::uint64_t count = 0;
        WV_CHECK(view_.scan(history.id, from, history.end_lsn, [&](const WalFinding& found) {
            if (found.kind == WalFinding::Kind::commit || found.kind == WalFinding::Kind::abort)
                ++count;
            return true;
        }));
        return count;
    }

    // The base of a primary becomes consistent with the record that ends its backup, so that is
    // where to stop. 'immediate' stops only before the record that follows, which may not exist
    // yet; it is left for the base of a standby, whose backup has no such record, with the WAL that
    // follows as far as it goes.
    Result<> stop_at_consistency(StopPoint& stop, std::uint64_t segment_bytes) {
        const Lsn base_stop = stop_of(stop.base);
        const Lsn near{base_stop.value - std::min(base_stop.value, kBackupEndBytesMax)};
        WV_CHECK(view_.scan(stop.history.id, std::max(near, start_of(stop.base)), base_stop,
                            [&](const WalFinding& found) {
                                if (found.kind == WalFinding::Kind::backup_end)
                                    stop.recovery_lsn = found.start_lsn;
                                return true;
                            }));
        if (stop.recovery_lsn) return {};
        const Lsn segment_end = (base_stop + (segment_bytes - 1)).round_down(segment_bytes);
        const Lsn to = std::min(segment_end, stop.history.end_lsn);
        if (to <= base_stop) return {};
        auto covered = view_.require_coverage(stop.history.id, base_stop, to);
        if (!covered && covered.error().code != Errc::gap) return fail(covered.error());
        if (covered) stop.wal_to_lsn = to;
        return {};
    }

    // WAL that is whole but cannot be replayed across: wal_level was minimal for a while.
    Result<> refuse_barrier(const Window& window, const StopPoint& stop) {
        WV_TRY(auto gaps, view_.gaps(context_.cluster));
        WV_TRY(auto stretches, view_.lineage(window.history.id));
        for (const auto& gap : gaps) {
            if (gap.next || gap.from_lsn >= stop.wal_to_lsn || gap.to_lsn <= start_of(stop.base))
                continue;
            for (const storage::Stretch& stretch : stretches)
                if (stretch.history == gap.history_id && gap.from_lsn < stretch.to)
                    return say_.in_gap(window, gap);
        }
        return {};
    }

    // A commit on the far side of a gap says nothing about the state of the base.
    Result<> forget_unconnected(const Window& window, StopPoint& stop) {
        if (!stop.last_kept || stop.last_kept->start_lsn >= start_of(stop.base)) return {};
        auto covered = view_.require_coverage(window.history.id, stop.last_kept->start_lsn,
                                              start_of(stop.base));
        if (!covered && covered.error().code != Errc::gap) return fail(covered.error());
        if (!covered) stop.last_kept.reset();
        return {};
    }

    // The last record replay must reach: the last commit, a later PREPARE (its transaction holds
    // locks and may still be committed), or the restore point itself.
    Result<std::optional<WalFinding>> last_needed(const StopPoint& stop, const Cut& cut) {
        std::optional<WalFinding> last = stop.last_kept;
        WV_TRY(auto prepared, view_.lineage_marks(stop.history.id, WallTime{}, WallTime{},
                                                  {pb::MarkEntry::PREPARED}));
        for (const auto& mark : prepared) {
            if (Lsn{mark.mark.start_lsn()} >= cut.lsn) continue;
            if (!last || last->start_lsn < Lsn{mark.mark.start_lsn()}) last = finding_of(mark.mark);
        }
        if (cut.keep && (!last || last->start_lsn < cut.keep->start_lsn)) last = cut.keep;
        WV_CHECK(prefer_later_abort(stop, cut, last));
        return last;
    }

    // No commit stands behind the last one kept, but a ROLLBACK PREPARED may: without it the
    // transaction it ended would be waiting again.
    Result<> prefer_later_abort(const StopPoint& stop, const Cut& cut,
                                std::optional<WalFinding>& last) {
        const Lsn from = std::max(last ? last->end_lsn : Lsn{}, Lsn{stop.base.stop_lsn()});
        const Lsn to = std::min(cut.lsn, stop.history.end_lsn);
        if (from >= to) return {};
        return view_.scan(stop.history.id, from, to, [&](const WalFinding& finding) {
            if (finding.kind == WalFinding::Kind::abort) last = finding;
            return true;
        });
    }

    Result<std::uint64_t> segment_bytes_of_cluster() {
        WV_TRY(auto clusters, view_.clusters());
        for (const auto& cluster : clusters)
            if (cluster.name == context_.cluster && cluster.segment_bytes > 0)
                return cluster.segment_bytes;
        return fail(Errc::corrupt, "the repository does not say how large WAL segments of " +
                                       context_.cluster + " are");
    }

    RepositoryView& view_;
    const Target& target_;
    const ResolveContext& context_;
    std::vector<Window> windows_;
    StopPointErrors say_;
};

bool is_chosen(const ResolveContext& context, const HistoryRecord& history) {
    if (context.timeline && history.timeline != *context.timeline) return false;
    return to_hex(history.id).starts_with(context.history);
}

}  // namespace

Result<StopPoint> resolve_target(RepositoryView& view, const Target& target,
                                 const ResolveContext& context) {
    const bool one_base = target.kind == Target::Kind::backup;
    WV_TRY(auto windows, restore_windows(view, context.cluster, one_base));
    if (windows.empty())
        return fail(
            Errc::outside_window,
            context.cluster + " has no complete base backup yet, so nothing can be restored",
            "take one: walvault backup");
    std::erase_if(windows,
                  [&](const Window& window) { return !is_chosen(context, window.history); });
    if (windows.empty())
        return fail(Errc::outside_window,
                    "no restorable history " +
                        (context.timeline ? "of timeline " + std::to_string(*context.timeline)
                                          : "begins with " + context.history) +
                        " is stored",
                    "walvault info --timelines lists them");
    return Resolver(view, target, context, std::move(windows)).resolve();
}

}  // namespace walvault::agent
