// JournalAttachment: where a database's journal goes on, decided from what is stored and what its
// slot says; pure.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "proto/lsn.h"
#include "storage/repository_view.h"

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
    // The server left the journal's way there, before its end: what it has behind that is taken
    // back, and it goes on where the slot begins.
    std::optional<Lsn> left_lsn = {};
};
// A slot of this name is there, and no journal is known: it begins where the slot is.
struct AdoptJournalSlot {
    Lsn start_lsn;
};
using JournalAttachment =
    std::variant<ContinueJournal, JournalBehind, MakeJournalSlot, AdoptJournalSlot>;

// Where the WAL of history `now` leaves that of `before`, of whose transactions a journal is: from
// there on the journal has what the server never had, and lacks what it has. Nothing where both are
// one. Of histories without a known ancestor in common: the start of `now`.
std::optional<Lsn> left_at(const std::vector<storage::HistoryRecord>& histories, const Id16& now,
                           const Id16& before);

// `end_lsn`: of the main journal; nothing where none is known. `left_lsn`: as left_at() says.
JournalAttachment choose_journal_attachment(const std::optional<Lsn>& end_lsn,
                                            const std::optional<Lsn>& left_lsn,
                                            const JournalSlotSide& slot);

}  // namespace walvault::agent
