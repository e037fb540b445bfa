// Values and rows of the journal in the forms they are shown in: terminals, JSON, CSV, COPY.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "agent/journal_values.h"

namespace walvault::agent {

// For a terminal: 'it''s', NULL, ? (not known), * (masked); longer texts are cut, with their size.
std::string value_text(const RowValue& value);
// "id=4711, b='x'": the columns whose values are known; with `all` the others too.
std::string row_text(const pb::JournalRelation& relation, const Row& row, bool all = false);
// "(id)=(4711)": of the key, or of the whole row where there is none.
std::string key_text(const pb::JournalRelation& relation, const Row& row);
// Of an update: "note: 'a' -> 'b'" for each column that changed, "note: ? -> 'b'" where it is not
// known what it was. Of an insert and a delete the row's known columns.
std::string change_text(const pb::JournalRelation& relation, const RowChange& change);

// {"column": text or null} of what is known. `left_out`: into it go the names of the others, as
// "unknown", "unchanged" or "masked" lists, where there are any.
nlohmann::ordered_json row_json(const pb::JournalRelation& relation, const Row& row,
                                nlohmann::ordered_json* left_out = nullptr);
nlohmann::ordered_json key_json(const pb::JournalRelation& relation, const Row& row);

// A field of CSV: RFC 4180; NULL is an empty field, an empty text "".
std::string csv_field(const std::optional<std::string>& value);
// With the line's end.
std::string csv_line(const std::vector<std::optional<std::string>>& fields);

// A line of COPY's text format with its end. Every value is known (asserted).
std::string copy_line(const Row& row);

// "public.orders", as people write it; parts with other characters than those of plain names in
// double quotes.
std::string table_text(std::string_view schema, std::string_view name);
// "the key of public.t was (id, day)", or "public.t had no key".
std::string key_was_text(const pb::JournalRelation& relation);
// "insert", "update", "delete", "truncate", "message", "origin".
std::string_view kind_name(JournalRecordKind kind);

}  // namespace walvault::agent
