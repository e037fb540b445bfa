// UndoSql: the statement that takes one change of a row back, if the row is still as the change
// left it.
//
// Pure. Rows are looked for in the table itself (ONLY), as the journal has them, and generated
// columns are left to the server. Each statement is a DO block: it runs in every client, inside of
// the transaction that it is pasted into, and raises an error that names the row where not exactly
// one was hit. In comparisons and values stands the text that the journal has, under the settings
// of undo_settings().
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "agent/journal_values.h"

namespace walvault::agent {

// "\"a b\"" and "'it''s'"; text with a backslash as E'…', which means the same everywhere. Control
// characters (control_length()) are escaped: \xHH and \uXXXX, in names U&"\XXXX".
std::string sql_identifier(std::string_view name);
std::string sql_literal(std::string_view text);
std::string sql_table(const pb::JournalRelation& relation);

struct UndoStatement {
    std::string sql;             // empty: there is nothing to run
    std::string refusal = {};    // why there is none, where there should be one
    bool leaves_masked = false;  // masked columns stay as they are, or get their default
};

// `change` with everything resolved that can be; `kind`: inserted, updated or deleted.
UndoStatement undo_statement(JournalRecordKind kind, const pb::JournalRelation& relation,
                             const RowChange& change, Xid xid);

// The statement that keeps a script from being committed that leaves so many changes as they are.
std::string undo_stop(std::uint64_t not_undone_count);

// SET LOCAL statements, so that the server writes values as they stand in the journal.
std::string undo_settings();

}  // namespace walvault::agent
