// UndoPlan: which statements take back what transactions did to rows, what cannot be taken back,
// and what came after it that they would meet.
//
// Statements are kept on disk, the last change first; memory does not grow with the transactions.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/journal_answer.h"
#include "agent/journal_set.h"
#include "agent/table_state.h"

namespace walvault::agent {

struct UndoWanted {
    std::optional<Xid> xid = {};
    JournalRange range = {};
    std::string table;  // empty: all
};

// A later change of a row that the statements touch, or of what was not undone.
struct UndoConflict {
    storage::JournalTransaction transaction;
    JournalRecordKind kind{};
    std::string table;
    std::string key;
};
struct NotUndone {
    Xid xid = 0;
    JournalRecordKind kind{};
    std::string table;
    std::string key;
    std::string reason;
};

// Lists are cut at so many; the counts go on.
inline constexpr std::size_t kUndoListedMax = 200;

class UndoPlan {
public:
    // Errors: outside_window where the journal has no such change; ambiguous for several
    // transactions of one number; others as the journal gives them.
    static Result<UndoPlan> make(OpenedView& opened, JournalSet& set, const UndoWanted& wanted);

    std::uint64_t transaction_count = 0;
    storage::JournalTransaction first, last;
    std::uint64_t change_count = 0;
    std::uint64_t statement_count = 0;
    std::set<std::string> tables;
    std::vector<UndoConflict> conflicts;
    std::uint64_t conflict_count = 0;
    std::vector<NotUndone> not_undone;
    std::uint64_t not_undone_count = 0;
    std::set<std::string> masked_tables;  // with masked columns that stay as they are
    std::vector<std::string> notes;
    Lsn looked_until;  // conflicts up to there are known

    // Each statement, in the order in which they are to run.
    Result<> each_statement(const std::function<Result<bool>(const std::string&)>& sink) const;

private:
    friend class UndoMaker;
    std::unique_ptr<storage::ScratchRows> scratch_;
};

}  // namespace walvault::agent
