// TableForm: what of the catalogue tells that the rows of a table are not what they were, though no
// change of a row was decoded: a rewriting ALTER TABLE, a column that came with a default.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "wal/connection.h"

namespace walvault::wal {

struct TableForm {
    std::uint32_t filenode = 0;  // a new one by TRUNCATE, VACUUM FULL, CLUSTER and rewriting ALTER
    // Number, hash of the name, type and type modifier of each column: "1:-52:23:-1,2:…".
    std::string columns;
    // A hash of the columns' versions in the catalogue, which ALTER TABLE makes new and VACUUM
    // FULL, CLUSTER and TRUNCATE do not.
    std::int64_t column_versions = 0;
};

enum class FormChange {
    none,
    columns,  // there is one that was not, or under another name: what rows have in it is not known
    rewritten,  // maybe: rows may have other values in columns that are called as before
};
// Pure. TRUNCATE is decoded, and so are none of the others that only move rows: they are no change.
// A statement that alters columns without touching rows (SET STATISTICS) and one that moves rows
// look like `rewritten` together.
FormChange compare_forms(const TableForm& before, const TableForm& now);

// Of those of `tables` (oids) that there are, as the transaction of `sql` sees the catalogue.
Task<Result<std::map<std::uint32_t, TableForm>>> table_forms(Connection& sql,
                                                             std::vector<std::uint32_t> tables);
// The version of each one's row in pg_class: ALTER TABLE makes a new one, but for what renames or
// sets options of a column. Much cheaper than table_forms().
Task<Result<std::map<std::uint32_t, std::uint32_t>>> table_versions(
    Connection& sql, std::vector<std::uint32_t> tables);

}  // namespace walvault::wal
