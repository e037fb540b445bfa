// RowVersions: the versions of one row, from its changes in order: what was before each, and what
// unchanged values are, by looking back.
//
// Pure.
#pragma once

#include <optional>

#include "agent/journal_values.h"

namespace walvault::agent {

struct RowVersion {
    storage::JournalTransaction transaction;
    JournalRecordKind kind{};  // inserted, updated, deleted, truncated
    pb::JournalRelation relation = {};
    RowChange change = {};  // as whole as it is known
    bool came = false;      // an update gave the row its key: it had another one before
    bool went = false;      // an update gave it another key
};

// A key by the names of its columns and the text of each.
struct NamedKey {
    std::vector<std::string> names;
    std::vector<std::string> values;
    auto operator<=>(const NamedKey&) const = default;
};

// Changes from when the table's key was another one, which do not tell of this row.
struct OtherKey {
    pb::JournalRelation relation;  // as the last of them told it
    Lsn until;                     // its end LSN
};

class RowVersions {
public:
    explicit RowVersions(NamedKey key) : key_(std::move(key)) {}

    // The row at the begin, from a snapshot; empty: there was none. Does not count where the key
    // of the table had other columns.
    void begin_with(const pb::JournalRelation& relation, Row row);
    // Nothing is known of the row any more: a gap lies between.
    void forget();
    // The next change that JournalReader::read_key() hands out. Nothing for a truncation where
    // there was no row, and for a change from when the key had other columns: behind it nothing is
    // known of the row. Errors: corrupt.
    Result<std::optional<RowVersion>> add(const storage::JournalTransaction& transaction,
                                          const storage::JournalChange& change);
    // The row as it is now, in the columns of relation(); nullptr: there is none, or it is not
    // known.
    const Row* row() const { return row_ && !row_->empty() ? &*row_ : nullptr; }
    const pb::JournalRelation& relation() const { return relation_; }
    // Set where changes did not count.
    const std::optional<OtherKey>& other_key() const { return other_key_; }
    // The row has this key.
    bool is_key(const pb::JournalRelation& relation, const Row& row) const;

private:
    Row before_in(const pb::JournalRelation& relation) const;
    NamedKey key_;
    std::optional<OtherKey> other_key_;
    pb::JournalRelation relation_;
    std::optional<Row> row_;  // as it is now; nothing: not known; empty: there is none
};

}  // namespace walvault::agent
