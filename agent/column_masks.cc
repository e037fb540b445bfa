#include "agent/column_masks.h"

#include <fmt/format.h>

namespace walvault::agent {

ColumnMasks::Columns ColumnMasks::columns_of(const std::vector<std::string>& paths) {
    Columns columns;
    for (const std::string& path : paths) {
        columns.paths.insert(path);
        columns.names.insert(path.substr(path.rfind('.') + 1));
    }
    return columns;
}

ColumnMasks::ColumnMasks(const JournalConfig& config)
    : masked_(columns_of(config.masked_columns)), dropped_(columns_of(config.dropped_columns)) {}

bool ColumnMasks::Columns::hold(const TableNames& table, std::string_view column) const {
    if (paths.empty()) return false;
    if (table.is_gone && names.contains(column)) return true;
    return paths.contains(fmt::format("{}.{}.{}", table.schema, table.table, column)) ||
           (!table.root_table.empty() &&
            paths.contains(fmt::format("{}.{}.{}", table.root_schema, table.root_table, column)));
}

ColumnRule ColumnMasks::rule_of(const TableNames& names, std::string_view column) const {
    if (dropped_.hold(names, column)) return ColumnRule::drop;
    return masked_.hold(names, column) ? ColumnRule::mask : ColumnRule::keep;
}

}  // namespace walvault::agent
