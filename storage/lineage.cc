#include "storage/lineage.h"

#include <algorithm>

#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

// More forks than any cluster lives to see; a longer chain is a ring.
constexpr std::size_t kAncestorsMax = 10'000;

}  // namespace

Result<std::vector<Stretch>> lineage_from(
    const Id16& history,
    const std::function<Result<std::optional<pb::HistoryOpened>>(const Id16&)>& find) {
    std::vector<Stretch> stretches;
    Id16 id = history;
    Lsn to = kOpenEndLsn;
    for (std::size_t n = 0; n < kAncestorsMax; ++n) {
        WV_TRY(auto opened, find(id));
        if (!opened)
            return fail(Errc::corrupt, "the history " + to_hex(id) + " is not in the ledger");
        const Lsn from{opened->start_lsn()};
        if (from < to) stretches.push_back({.history = id, .from = from, .to = to});
        to = std::min(to, from);
        if (opened->parent_id().empty()) {
            std::reverse(stretches.begin(), stretches.end());
            return stretches;
        }
        id = id_from<16>(opened->parent_id());
    }
    return fail(Errc::corrupt, "the ancestors of the history " + to_hex(history) + " form a ring");
}

Result<std::vector<Stretch>> lineage_of(Index& index, const Id16& history) {
    return lineage_from(history, [&](const Id16& id) { return index.history(id); });
}

std::vector<pb::BackupInfo> bases_on_path(const HistoryRecord& history,
                                          const std::vector<HistoryRecord>& histories,
                                          const std::vector<pb::BackupInfo>& backups) {
    std::vector<pb::BackupInfo> bases;
    Lsn left_at = kOpenEndLsn;
    const HistoryRecord* on_path = &history;
    for (std::size_t n = 0; n < kAncestorsMax && on_path != nullptr; ++n) {
        for (const auto& backup : backups)
            if (as_text(on_path->id) == std::string_view(backup.history_id()) &&
                Lsn{backup.stop_lsn()} <= left_at)
                bases.push_back(backup);
        if (!on_path->parent) break;
        left_at = std::min(left_at, on_path->fork_lsn);
        auto parent = std::find_if(histories.begin(), histories.end(),
                                   [&](const auto& each) { return each.id == *on_path->parent; });
        on_path = parent == histories.end() ? nullptr : &*parent;
    }
    std::sort(bases.begin(), bases.end(),
              [](const auto& a, const auto& b) { return a.stop_lsn() < b.stop_lsn(); });
    return bases;
}

Result<std::optional<std::string>> stored_timeline_history(Index& index, const Id16& history,
                                                           TimelineId timeline) {
    Id16 id = history;
    for (std::size_t n = 0; n < kAncestorsMax; ++n) {
        WV_TRY(auto content, index.timeline_history(id, timeline));
        if (content) return content;
        WV_TRY(auto opened, index.history(id));
        if (!opened || opened->parent_id().empty()) break;
        id = id_from<16>(opened->parent_id());
    }
    return std::optional<std::string>{};
}

}  // namespace walvault::storage
