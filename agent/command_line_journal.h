// The command line's verbs of the row journal: their options, and what they need of one another.
#pragma once

#include <string>

#include "agent/verbs.h"

namespace CLI {
class App;
}  // namespace CLI

namespace walvault::agent {

// Where CLI11 puts what it reads.
struct JournalParsed {
    RowHistoryArguments history;
    ChangesArguments changes;
    ShowArguments show;
    RowsArguments rows;
    ExtractArguments extract;
    UndoArguments undo;
    FollowArguments follow;
};

void add_journal_verbs(CLI::App& app, JournalParsed& parsed);

// Which verbs read the journal alone; log does with a table.
bool is_journal_verb(const std::string& verb);

// Errors: invalid_argument for options that need or exclude one another, and for forms of -o that
// a verb does not have; every verb is asked.
Result<> check_journal(const std::string& verb, const JournalParsed& parsed,
                       const LogArguments& log);
Result<> check_output(const std::string& verb, Output output, const LogArguments& log);

}  // namespace walvault::agent
