// RowValue, Row: the values of a row as the journal has them, and what of it is not known.
//
// Pure. A value is PostgreSQL's text. What was not sent is told from NULL everywhere: an unchanged
// TOASTed value, a column that is not of the key in the old row of a delete, a masked column.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/journal_format.h"
#include "storage/journal_reader.h"

namespace walvault::agent {

struct RowValue {
    enum class Kind : std::uint8_t {
        unknown,    // it had a value, and nobody told which
        unchanged,  // of a new row: what the old one has
        null,
        text,
        masked,  // `text` is a keyed hash of it
    };
    Kind kind = Kind::unknown;
    std::string text = {};

    bool is_known() const { return kind == Kind::null || kind == Kind::text; }
    bool operator==(const RowValue&) const = default;
};
inline RowValue null_value() { return {RowValue::Kind::null}; }
inline RowValue text_value(std::string text) { return {RowValue::Kind::text, std::move(text)}; }

// One value for each column of its relation; empty: there is no such row.
using Row = std::vector<RowValue>;

// Errors: corrupt.
Result<Row> read_row(ByteSpan tuple);

// The row before and behind a change, as far as the change itself tells: unchanged values are those
// of the old row where that was sent whole, key columns of an old row that was not sent are the new
// one's, and what is left is unknown (old) or unchanged (new).
struct RowChange {
    Row before;  // empty for an insert
    Row now;     // empty for a delete
};
// `change`: inserted, updated or deleted. Errors: corrupt.
Result<RowChange> read_change(const storage::JournalChange& change);

// Values of `now` that are unchanged are those of `before`, and unknown where that does not know
// either.
void resolve_unchanged(Row& now, const Row& before);
// Values that are not known in `row` are those of `other`, which is the same row.
void fill_unknown(Row& row, const Row& other);

// The same row in the columns of another version of its table: by name. What was not there is
// unknown, and what is of another type: ALTER COLUMN … TYPE gives rows other values, and is not
// decoded. Where PostgreSQL's own cast keeps the text (a wider varchar, text, a wider integer or
// numeric) the value is the same. A column that was dropped and made again under its name, names
// that were swapped, and USING with such a type cannot be told.
Row as_in(const Row& row, const pb::JournalRelation& from, const pb::JournalRelation& to);

// No update and no delete of the table is in the journal, as it was when `relation` was written.
bool is_insert_only(const pb::JournalRelation& relation);
// The relation's changes tell the whole old row.
inline bool has_whole_old_rows(const pb::JournalRelation& relation) {
    return relation.identity() == pb::JournalRelation::FULL;
}

// What tells the row from others in its table, in bytes that sort as the key's columns do: integers
// by value, other values by the bytes of their text. Of a table without a key, all columns.
// Nothing: a column of it is not known.
std::optional<std::string> sortable_key(const pb::JournalRelation& relation, const Row& row);
bool has_key(const pb::JournalRelation& relation);
// Names of key_columns(). Keys of other columns do not tell the same rows, whatever their values.
std::vector<std::string> key_names(const pb::JournalRelation& relation);

// A row as bytes, and back. Errors: corrupt.
std::string pack_row(const Row& row);
Result<Row> unpack_row(std::string_view bytes);

}  // namespace walvault::agent
