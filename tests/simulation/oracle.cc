#include "tests/simulation/oracle.h"

#include <algorithm>

#include "base/shared_prefix.h"
#include "tests/simulation/index_home.h"

namespace walvault::simulation {
namespace {

std::string short_id(const Id16& id) { return to_hex(id).substr(0, 8); }

std::string range(Lsn from, Lsn to) { return "[" + to_string(from) + ", " + to_string(to) + ")"; }

// The first byte of [from, to) of a history that is not the branch's; `to` where all are.
Result<Lsn> first_difference(storage::RepositoryView& view, const Id16& history,
                             const Branch& branch, Lsn from, Lsn to) {
    Lsn at = from;
    Lsn differs = to;
    WV_CHECK(view.read_wal(history, from, to, [&](ByteSpan wal) -> Result<> {
        if (differs < to) return {};
        const Lsn stop = std::min(at + wal.size(), branch.end());
        const ByteSpan theirs = at < stop ? branch.bytes(at, stop) : ByteSpan();
        const std::size_t same = shared_prefix_bytes(wal, theirs);
        if (same < wal.size()) differs = at + same;
        at = at + wal.size();
        return {};
    }));
    return differs;
}

}  // namespace

void Oracle::add_branch(std::shared_ptr<const Branch> branch) {
    if (std::ranges::find(branches_, branch) == branches_.end())
        branches_.push_back(std::move(branch));
}

std::string Oracle::take_promise(const Session& session, Lsn flushed) {
    if (flushed > session.sent_lsn)
        return "the server was told " + to_string(flushed) + " but had sent up to " +
               to_string(session.sent_lsn);
    if (flushed < session.acknowledged_lsn)
        return "the server was told " + to_string(flushed) + " after " +
               to_string(session.acknowledged_lsn);
    if (flushed <= session.from_lsn) return "";
    const bool again = last_session_ == &session && !promises_.empty() &&
                       promises_.back().branch == session.branch &&
                       promises_.back().from_lsn == session.from_lsn;
    if (!again) promises_.push_back({session.branch, session.from_lsn, flushed});
    promises_.back().to_lsn = std::max(promises_.back().to_lsn, flushed);
    last_session_ = &session;
    return "";
}

bool Oracle::holds(View& view, const storage::HistoryRecord& history,
                   const Promise& promise) const {
    if (history.end_lsn < promise.to_lsn) return false;
    if (!view.require_coverage(history.id, promise.from_lsn, promise.to_lsn)) return false;
    auto differs =
        first_difference(view, history.id, *promise.branch, promise.from_lsn, promise.to_lsn);
    return differs && *differs == promise.to_lsn;
}

std::string Oracle::check_promise(View& view, const std::vector<storage::HistoryRecord>& histories,
                                  const Promise& promise) const {
    for (auto history = histories.rbegin(); history != histories.rend(); ++history)
        if (holds(view, *history, promise)) return "";
    std::string found = "the server of branch " + std::to_string(promise.branch->number) +
                        " was told that " + range(promise.from_lsn, promise.to_lsn) +
                        " is safe, and no history has it:";
    for (const auto& history : histories)
        found += " " + short_id(history.id) + range(history.start_lsn, history.end_lsn);
    return found;
}

std::string Oracle::check_bytes(View& view, const storage::HistoryRecord& history) const {
    auto lineage = view.lineage(history.id);
    if (!lineage) return lineage.error().message;
    const Lsn from = lineage->empty() ? history.start_lsn : lineage->front().from;
    // An ancestor may end before its stretch does, where it was left early; then what follows
    // begins in the same segment, and from there on all is one run.
    Lsn start = from;
    for (const storage::Stretch& stretch : *lineage)
        if (!view.require_coverage(history.id, start, std::min(stretch.to, history.end_lsn)))
            start = std::min(stretch.to, history.end_lsn);
    if (start >= history.end_lsn) return "";
    const std::string name = "history " + short_id(history.id);
    std::string found = name + range(start, history.end_lsn) + " is no server's past: it differs";
    std::string uncovered;
    bool is_one = false;
    for (const auto& branch : branches_) {
        auto differs = first_difference(view, history.id, *branch, start, history.end_lsn);
        if (!differs) return name + ": " + differs.error().message;
        found += " from branch " + std::to_string(branch->number) + " at " + to_string(*differs);
        if (*differs != history.end_lsn) continue;
        is_one = true;
        // What was lost with a disk, or left behind by a promotion, was never to be covered.
        uncovered = check_covered(*branch, history.covered_until, history.end_lsn);
        if (uncovered.empty()) return "";
    }
    return is_one ? name + ": " + uncovered : found;
}

std::string Oracle::check_gaps(View& view,
                               const std::vector<storage::HistoryRecord>& histories) const {
    auto gaps = view.gaps("main");
    if (!gaps) return gaps.error().message;
    for (const storage::GapRecord& gap : *gaps)
        if (gap.from_lsn >= gap.to_lsn)
            return "a gap from " + to_string(gap.from_lsn) + " to " + to_string(gap.to_lsn);
    for (std::size_t i = 0; i < histories.size(); ++i) {
        const storage::HistoryRecord& history = histories[i];
        if (history.cause != pb::HistoryOpened::GAP) continue;
        const bool is_named = std::ranges::any_of(*gaps, [&](const storage::GapRecord& gap) {
            return gap.next == history.id && gap.to_lsn == history.start_lsn;
        });
        const bool anything_before = std::ranges::any_of(
            histories.begin(), histories.begin() + static_cast<std::ptrdiff_t>(i),
            [](const auto& before) { return before.end_lsn > before.start_lsn; });
        if (!is_named && anything_before)
            return "history " + short_id(history.id) + " begins behind a gap that is not recorded";
    }
    // Another server may have given later what this one had not.
    for (const storage::GapRecord& gap : *gaps)
        if (std::ranges::find(histories, gap.history_id, &storage::HistoryRecord::id) ==
            histories.end())
            return "a gap of a history that is not known";
    return "";
}

std::string Oracle::check(SimulatedFiles& image, bool everything) const {
    if (promises_.empty()) return "";
    auto store = storage::make_directory_store(image, root_);
    SimulatedIndexes indexes;
    View::Options options;
    options.scratch_directory = "scratch";
    options.index_home = &indexes;
    auto view = View::open(*store, master_, options);
    if (!view) return "the repository cannot be read: " + view.error().message;
    auto histories = (*view)->histories("main");
    if (!histories) return "the histories cannot be read: " + histories.error().message;
    std::string broken;
    const std::size_t first = everything ? 0 : promises_.size() - 1;
    for (std::size_t i = first; broken.empty() && i < promises_.size(); ++i)
        broken = check_promise(**view, *histories, promises_[i]);
    if (broken.empty()) broken = check_gaps(**view, *histories);
    for (const auto& history : *histories) {
        if (history.damage && broken.empty())
            broken = "history " + short_id(history.id) + " is damaged: " + history.damage->message;
        if (everything && broken.empty() && history.end_lsn > history.start_lsn)
            broken = check_bytes(**view, history);
    }
    return broken;
}

std::string Oracle::check_covered(const Branch& branch, WallTime until, Lsn flushed) {
    for (auto commit = branch.commits().rbegin(); commit != branch.commits().rend(); ++commit) {
        if (commit->end_lsn <= flushed) break;
        if (commit->at <= until)
            return "the commit at " + to_string(commit->start_lsn) + " of " +
                   to_utc_text(commit->at) + " is not flushed, but everything up to " +
                   to_utc_text(until) + " is said to be";
    }
    return "";
}

}  // namespace walvault::simulation
