// ColumnMasks: which columns the journal keeps a hash of, or nothing: [server.NAME.journal] mask;
// pure.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "agent/config.h"
#include "agent/journal_router.h"

namespace walvault::agent {

class ColumnMasks {
public:
    explicit ColumnMasks(const JournalConfig& config);

    // A partition's columns are those of its table. Of a table that is gone it is not known what it
    // was a partition of: then a name that any mask gives to a column counts.
    ColumnRule rule_of(const TableNames& names, std::string_view column) const;

private:
    struct Columns {
        std::set<std::string, std::less<>> paths;  // "schema.table.column"
        std::set<std::string, std::less<>> names;  // their last parts
        bool hold(const TableNames& table, std::string_view column) const;
    };
    static Columns columns_of(const std::vector<std::string>& paths);

    Columns masked_;
    Columns dropped_;
};

}  // namespace walvault::agent
