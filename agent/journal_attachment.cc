#include "agent/journal_attachment.h"

namespace walvault::agent {

JournalAttachment choose_journal_attachment(const std::optional<Lsn>& end_lsn,
                                            const JournalSlotSide& slot) {
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
