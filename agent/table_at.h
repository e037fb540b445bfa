// table_at(): the rows of a table as a physical restore to the same target would have them: the
// newest snapshot at or before it, and the journal up to there.
#pragma once

#include <memory>

#include "agent/journal_moment.h"
#include "agent/journal_set.h"
#include "agent/table_state.h"

namespace walvault::agent {

// Errors: as resolve_target() and moment_of().
Result<JournalMoment> resolve_moment(OpenedView& opened, const JournalSet& set,
                                     const std::string& at, const std::string& before);

struct TableAt {
    std::unique_ptr<storage::ScratchRows> scratch = {};
    std::unique_ptr<TableState> state = {};  // its relation() is there
    std::string table = {};                  // its name
    std::uint32_t oid = 0;
    JournalMoment moment;
    pb::SnapshotTaken snapshot;
};
// Memory is bounded; what there is of the table lies on disk for as long. Errors: outside_window
// where no snapshot precedes the moment, or the table is journaled for inserts only; gap where one
// lies between; the hint says from when on it works; ambiguous where the table had another name
// then, unless it is asked for by its oid. Others as the journal gives them.
Result<TableAt> table_at(OpenedView& opened, JournalSet& set, const std::string& table,
                         const JournalMoment& moment);

// Errors: outside_window, naming one of `columns` that is not known in some row: COPY and CSV
// cannot say so.
Result<> require_known_values(const TableAt& table, const std::vector<std::size_t>& columns);

}  // namespace walvault::agent
