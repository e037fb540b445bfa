// JournalSet: the journals of one database, opened for a question, and what of a time range is in
// them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/journal_gaps.h"
#include "agent/journal_names.h"
#include "agent/open_view.h"
#include "agent/target.h"
#include "storage/journal_reader.h"

namespace walvault::agent {

struct OpenedJournal {
    storage::JournalRecord record;
    std::unique_ptr<storage::JournalReader> reader;
    std::vector<storage::JournalTableRecord> tables = {};
    std::vector<pb::JournalGap> gaps = {};
    std::map<std::uint32_t, pb::JournalRelation> latest = {};  // as latest_relation() found them
};

struct JournalSet {
    std::string database;
    std::vector<OpenedJournal> journals;  // in the order in which they were opened
    // Every transaction of the database that ends at or before it is in its journal.
    Lsn whole_until() const;
};

// `database`: empty for the only one that is journaled. Errors: not_found where nothing is
// journaled, or not that one; ambiguous where several are.
Result<JournalSet> open_journals(OpenedView& opened, const std::string& database);

// A table in one journal; several oids where it was dropped and made again.
struct TablePlace {
    OpenedJournal* journal = nullptr;
    std::vector<storage::JournalTableRecord> tables;
    std::string text() const;  // its name, as people write it
    std::set<std::uint32_t> oids() const;
};
// In each journal that has it; never empty. Errors: as matching_tables().
Result<std::vector<TablePlace>> find_table(JournalSet& set, const std::string& text);

// The latest version of a table that a change or a snapshot tells. Errors: not_found.
Result<pb::JournalRelation> latest_relation(OpenedJournal& journal, std::uint32_t oid);

// What --since and --until mean: `from` < end LSN ≤ `to`, and commit times; zero: no limit.
struct JournalRange {
    Lsn from;
    Lsn to = storage::kOpenEndLsn;
    WallTime since{};
    WallTime until{};
    storage::JournalQuery query() const;
    // No commit with a later end LSN is in the range that a time says.
    bool is_before(const storage::JournalTransaction& transaction) const;
};
// Both as --to takes them: TIME, RELATIVE, lsn:, xid:, name:, earliest, latest; what they name is
// included. Empty: `fallback` for `since`, no limit for `until`. Errors: as parse_target();
// not_found for transactions and restore points that are not known; ambiguous for several.
Result<JournalRange> parse_range(OpenedView& opened, const std::string& since,
                                 const std::string& until, WallTime fallback);

// As JournalReader::read(), but passes over gaps.
Result<> read_between_gaps(OpenedJournal& journal, const storage::JournalQuery& query,
                           const storage::JournalSink& sink);
// Of several journals, transactions in the order of their end LSNs, forward only. A transaction
// that several have is handed out once for each.
Result<> read_merged(const std::vector<OpenedJournal*>& journals,
                     const storage::JournalQuery& query, const storage::JournalSink& sink);

}  // namespace walvault::agent
