#include "agent/journal_attachment.h"

#include <algorithm>
#include <map>

namespace walvault::agent {
namespace {

// Each history that `id` continues, itself too, and up to where their bytes are the same.
std::map<Id16, Lsn> shared_with(const std::vector<storage::HistoryRecord>& histories,
                                const Id16& id) {
    std::map<Id16, Lsn> shared;
    Lsn until = storage::kOpenEndLsn;
    std::optional<Id16> at = id;
    while (at && !shared.contains(*at)) {
        shared[*at] = until;
        auto found =
            std::find_if(histories.begin(), histories.end(),
                         [&](const storage::HistoryRecord& each) { return each.id == *at; });
        if (found == histories.end()) break;
        until = std::min(until, found->fork_lsn);
        at = found->parent;
    }
    return shared;
}

}  // namespace

std::optional<Lsn> left_at(const std::vector<storage::HistoryRecord>& histories, const Id16& now,
                           const Id16& before) {
    if (now == before) return std::nullopt;
    const auto of_now = shared_with(histories, now);
    std::optional<Lsn> left;
    for (const auto& [id, until] : shared_with(histories, before))
        if (auto common = of_now.find(id); common != of_now.end())
            left = std::max(left.value_or(Lsn{}), std::min(until, common->second));
    if (left) return left;
    const auto named = [&](const Id16& id) {
        return std::find_if(histories.begin(), histories.end(),
                            [&](const storage::HistoryRecord& each) { return each.id == id; });
    };
    const auto current = named(now), former = named(before);
    if (current == histories.end()) return Lsn{};
    for (const auto& [id, until] : of_now) {
        const auto root = named(id);
        if (root == histories.end() || root->cause != pb::HistoryOpened::GAP) continue;
        // WAL was missed for a while, and the server was still the same.
        const bool goes_on = former != histories.end() && former->timeline == root->timeline;
        if (goes_on && id == now) return std::nullopt;
        if (goes_on) return until;
    }
    return current->start_lsn;
}

JournalAttachment choose_journal_attachment(const std::optional<Lsn>& end_lsn,
                                            const std::optional<Lsn>& left_lsn,
                                            const JournalSlotSide& slot) {
    if (end_lsn && left_lsn && *left_lsn < *end_lsn)
        return MakeJournalSlot{slot.exists,
                               "the server went another way: what the journal has from there on "
                               "was lost with another primary, or taken back",
                               left_lsn};
    if (!slot.exists)
        return MakeJournalSlot{false, end_lsn ? "the slot of the journal was not there" : ""};
    if (!slot.unusable.empty()) return MakeJournalSlot{true, slot.unusable};
    if (!end_lsn) return AdoptJournalSlot{slot.confirmed_flush_lsn};
    if (slot.confirmed_flush_lsn > *end_lsn)
        return JournalBehind{
            slot.confirmed_flush_lsn,
            "the slot was told of more than is stored: the repository was put back, "
            "or somebody else read from the slot"};
    return ContinueJournal{*end_lsn};
}

}  // namespace walvault::agent
