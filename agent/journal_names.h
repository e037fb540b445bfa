// Names of tables, columns and transactions as people give them, and what they mean.
//
// Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "proto/lsn.h"
#include "proto/repository.pb.h"
#include "storage/journal_reader.h"

namespace walvault::agent {

struct TableName {
    std::string schema;  // empty: any
    std::string name;
    std::uint32_t oid = 0;  // of "oid:16384"; then there is no name
};
// "orders", "public.orders", "\"odd name\".\"T.1\"", "oid:16384". A name is taken as it stands;
// quotes are for dots and blanks in it. Errors: invalid_argument.
Result<TableName> parse_table_name(const std::string& text);

// Those of `tables` that `name` means: several of one name were dropped and made again. Errors:
// not_found, with the nearest name; ambiguous, of several schemas.
Result<std::vector<storage::JournalTableRecord>> matching_tables(
    const std::string& text, const std::vector<storage::JournalTableRecord>& tables);

// "id=4711,b=it's, so" in the order given; a comma that no "column=" follows belongs to the value,
// and "\," is a comma in any case. Errors: invalid_argument.
using NamedValues = std::vector<std::pair<std::string, std::string>>;
Result<NamedValues> parse_named_values(const std::string& text);

// The place of the column, or the nearest name in the error. Errors: not_found.
Result<std::uint32_t> find_column(const pb::JournalRelation& relation, const std::string& name);

// The key's values in the order of key_columns(). Errors: invalid_argument where a column of the
// key is missing or another one was given; not_found for a column that there is none of.
Result<std::vector<std::string>> key_values(const pb::JournalRelation& relation,
                                            const NamedValues& given);

// "xid:731" or "731". Errors: invalid_argument.
Result<Xid> parse_xid(const std::string& text);

}  // namespace walvault::agent
