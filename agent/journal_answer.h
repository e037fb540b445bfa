// What the verbs of the journal print: changes as records, lists in each form of -o, and the
// commands that lead from an answer to an action.
#pragma once

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/ddl_mark.h"
#include "agent/journal_set.h"
#include "agent/journal_text.h"
#include "agent/open_view.h"
#include "agent/restore_window.h"
#include "agent/verbs.h"

namespace walvault::agent {

// A change that outlives the call that handed it out.
struct ChangeRecord {
    storage::JournalTransaction transaction;
    JournalRecordKind kind{};
    pb::JournalRelation relation = {};  // inserted, updated, deleted; truncated: the first one
    RowChange change = {};
    std::vector<std::string> truncated = {};  // names of tables
    bool cascade = false, restart_identity = false;
    std::string prefix = {}, content = {};  // of a message
    std::optional<DdlMark> ddl = {};        // what it tells, where it is one of the event trigger
};
// Errors: corrupt.
Result<ChangeRecord> change_record(const storage::JournalTransaction& transaction,
                                   const storage::JournalChange& change);

// {"at","xid","commit_lsn","end_lsn","table","kind","key","old","new"} and, where there are such,
// "old_unknown", "new_unchanged", "old_masked", "new_masked": names of columns. Of a message
// "prefix" and "content", and "ddl" where the event trigger sent it.
nlohmann::ordered_json change_json(const ChangeRecord& record);
nlohmann::ordered_json transaction_json(const storage::JournalTransaction& transaction);
// "insert", "ddl": what is told of; the row, and what happened to it: for a terminal.
std::string record_kind_text(const ChangeRecord& record);
std::string record_row_text(const ChangeRecord& record);
std::string record_change_text(const ChangeRecord& record);

// A list of like records in JSON, JSON lines or CSV, written as they come. Not for text.
class AnswerList {
public:
    struct Form {
        std::string list;                  // its name in the document of -o json
        std::string type;                  // of each line of -o jsonl
        std::vector<std::string> columns;  // of -o csv: names of the records' members
    };
    // `head`: what -o json says before the list, and -o jsonl in its last line.
    AnswerList(const Globals& globals, Form form, nlohmann::ordered_json head);
    // False when nobody reads any more.
    bool add(const nlohmann::ordered_json& record);
    // A line of -o csv that is not made of a record's members.
    bool add_csv(const std::vector<std::optional<std::string>>& fields);
    // Errors: io when not all could be written.
    Result<> finish(const nlohmann::ordered_json& tail);

private:
    bool put(const std::string& text);
    const Globals& globals_;
    Form form_;
    nlohmann::ordered_json head_;
    std::uint64_t count_ = 0;
    bool failed_ = false;
};

// What an answer about a range says beside its records.
struct AnswerTail {
    bool more = false;  // earlier records are not shown
    std::vector<pb::JournalGap> gaps = {};
    std::vector<std::string> notes = {};
    // Lines for a terminal, in this order.
    std::string text(const std::string& zone) const;
    // {"more","gaps","notes"}
    nlohmann::ordered_json json() const;
    // The same lines on stderr with -o csv, which has no place for them.
    void tell_beside_csv(const Globals& globals, const std::string& zone) const;
};
// Gaps in the range, where it goes beyond what the journals have (before their begin, behind their
// end), and tables of which only inserts are in them.
Result<AnswerTail> tail_of(OpenedView& opened, JournalSet& set,
                           const std::vector<TablePlace>& places, const JournalRange& range);
// Where all that happens to the table is known again: its first snapshot behind `left`, or never.
Result<Lsn> known_again_at(storage::JournalReader& reader, const pb::JournalTableLeft& left);
// "not all that happened to public.t behind LSN 0/1 and before 0/2 may be in the journal: …"
std::string left_text(const std::string& table, const pb::JournalTableLeft& left, Lsn until);
// "only inserts of public.t are journaled: …"
std::string insert_only_text(const pb::JournalRelation& relation);
// "The journal has everything up to LSN 0/1, 2026-08-22 14:02:57.981 CEST.": behind an answer that
// is empty.
std::string reach_text(const JournalSet& set, const std::string& zone);

// The newest `limit` of records of several journals, in the order of their transactions.
template <class Record>
void keep_newest(std::vector<Record>& records, std::uint64_t limit, bool& more) {
    std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
        return a.transaction.end_lsn < b.transaction.end_lsn;
    });
    if (records.size() <= limit) return;
    more = true;
    records.erase(records.begin(), records.end() - static_cast<std::ptrdiff_t>(limit));
}

// One line of JSON; bytes that are not UTF-8 are replaced.
std::string json_line(const nlohmann::ordered_json& json);
// Text to stdout. Errors: io.
Result<> put_text(const std::string& text);

// "walvault restore --before xid:N …" for transactions that a base backup precedes.
class RestoreHints {
public:
    static Result<RestoreHints> make(const Globals& globals, OpenedView& opened);
    std::optional<std::string> before(const storage::JournalTransaction& transaction) const;
    // A line for people; empty where there is no such command.
    std::string line(const storage::JournalTransaction& transaction) const;

private:
    std::vector<LsnWindow> windows_;
    std::string source_;
};

}  // namespace walvault::agent
