// JournalAttachment: where a database's journal goes on, decided from what is stored and what its
// slot says; pure.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "proto/lsn.h"

namespace walvault::agent {

struct JournalSlotSide {
    bool exists = false;
    std::string unusable;     // why it gives nothing any more; empty: it does
    Lsn confirmed_flush_lsn;  // transactions at or before it are not sent any more
};

// The slot gives all that is not stored.
struct ContinueJournal {
    Lsn from_lsn;
};
// The slot has let go of what is not stored: a gap from the journal's end to `to_lsn`, and on from
// there.
struct JournalBehind {
    Lsn to_lsn;
    std::string cause;
};
// A new slot; where a journal is known, what lies before its start is a gap.
struct MakeJournalSlot {
    bool drop_first = false;
    std::string cause;
};
// A slot of this name is there, and no journal is known: it begins where the slot is.
struct AdoptJournalSlot {
    Lsn start_lsn;
};
using JournalAttachment =
    std::variant<ContinueJournal, JournalBehind, MakeJournalSlot, AdoptJournalSlot>;

// `end_lsn`: of the main journal; nothing where none is known.
JournalAttachment choose_journal_attachment(const std::optional<Lsn>& end_lsn,
                                            const JournalSlotSide& slot);

}  // namespace walvault::agent
