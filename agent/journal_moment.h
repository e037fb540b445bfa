// JournalMoment: up to where the journal counts for a target, so that what it tells equals a
// physical restore to it.
//
// Pure: the physical resolver has found the target's stop point.
#pragma once

#include <optional>
#include <string>

#include "agent/target.h"
#include "proto/wal_decoder.h"

namespace walvault::agent {

struct JournalMoment {
    Lsn lsn;          // transactions with an end LSN at or below it
    Lsn needed = {};  // the end of the last commit that a restore keeps; the journal reaches it
    WallTime at{};    // of that commit; zero: not known
    // The target was "latest", and the journal is behind the WAL that is stored: up to its end.
    bool is_end_of_journal = false;
    std::string text;  // the target, as it was given
};

// What the journals of a database have.
struct JournalReach {
    std::string database;
    Lsn whole_until;           // every transaction that ends at or before it
    WallTime covered_until{};  // zero: not known
};

// `cut_lsn`: records that start before it are kept; `last_kept`: the last commit among them.
// Errors: outside_window where the journal does not reach it.
Result<JournalMoment> moment_of(const Target& target, Lsn cut_lsn,
                                const std::optional<WalFinding>& last_kept,
                                const JournalReach& reach, const std::string& zone);

// The end LSN that the journal knows a commit by: records are padded to 8 bytes.
Lsn journal_end_of(const WalFinding& commit);

}  // namespace walvault::agent
