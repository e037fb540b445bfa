#include "wal/table_form.h"

#include <fmt/format.h>

#include <set>
#include <string_view>
#include <tuple>

#include "wal/query_rows.h"

namespace walvault::wal {
namespace {

// "4,12"; never empty, for that would be no list.
std::string list_of(const std::vector<std::uint32_t>& tables) {
    std::string list;
    for (const std::uint32_t oid : tables)
        list += (list.empty() ? "" : ",") + std::to_string(oid);
    return list.empty() ? "0" : list;
}

std::vector<std::string_view> split(std::string_view text, char at) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(at), text.size());
        parts.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

// A column without its number.
std::string_view named_part(std::string_view column) {
    return column.substr(std::min(column.find(':') + 1, column.size()));
}

}  // namespace

FormChange compare_forms(const TableForm& before, const TableForm& now) {
    std::set<std::string_view> had;
    std::set<std::string_view> had_names;
    for (const std::string_view column : split(before.columns, ',')) {
        had.insert(column);
        had_names.insert(named_part(column));
    }
    FormChange change = FormChange::none;
    for (const std::string_view column : split(now.columns, ',')) {
        if (had.contains(column)) continue;
        // Dropped and made again: what the old one had would be taken for the new one's.
        if (had_names.contains(named_part(column))) return FormChange::rewritten;
        change = FormChange::columns;
    }
    // That of a column that is gone says nothing of the others, but a hash does not tell them
    // apart.
    if (before.filenode != now.filenode && before.column_versions != now.column_versions)
        return FormChange::rewritten;
    return change;
}

Task<Result<std::map<std::uint32_t, TableForm>>> table_forms(Connection& sql,
                                                             std::vector<std::uint32_t> tables) {
    // hashtext: there is no md5() where only FIPS-approved functions are.
    WV_CO_TRY(
        const QueryResult found,
        co_await sql.query_one(fmt::format(
            "SELECT c.oid, c.relfilenode, pg_catalog.string_agg(a.attnum || ':' || "
            "pg_catalog.hashtext(a.attname::text) || ':' || a.atttypid || ':' || a.atttypmod, ',' "
            "ORDER BY a.attnum), pg_catalog.hashtextextended(pg_catalog.string_agg(a.attnum || ':' "
            "|| a.xmin, ',' ORDER BY a.attnum), 0) FROM pg_catalog.pg_class c LEFT JOIN "
            "pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT "
            "a.attisdropped WHERE c.oid IN ({}) GROUP BY c.oid, c.relfilenode",
            list_of(tables))));
    std::map<std::uint32_t, TableForm> forms;
    for (std::size_t row = 0; row < found.rows.size(); ++row) {
        WV_CO_TRY(const auto oid, number_at<std::uint32_t>(found, row, 0));
        TableForm& form = forms[oid];
        WV_CO_TRY(form.filenode, number_at<std::uint32_t>(found, row, 1));
        form.columns = text_at(found, row, 2);
        // A table may have no columns at all.
        if (form.columns.empty()) continue;
        WV_CO_TRY(form.column_versions, number_at<std::int64_t>(found, row, 3));
    }
    co_return forms;
}

Task<Result<std::map<std::uint32_t, std::uint32_t>>> table_versions(
    Connection& sql, std::vector<std::uint32_t> tables) {
    WV_CO_TRY(const QueryResult found,
              co_await sql.query_one(
                  fmt::format("SELECT c.oid, c.xmin FROM pg_catalog.pg_class c WHERE c.oid IN ({})",
                              list_of(tables))));
    std::map<std::uint32_t, std::uint32_t> versions;
    for (std::size_t row = 0; row < found.rows.size(); ++row) {
        WV_CO_TRY(const auto oid, number_at<std::uint32_t>(found, row, 0));
        WV_CO_TRY(versions[oid], number_at<std::uint32_t>(found, row, 1));
    }
    co_return versions;
}

}  // namespace walvault::wal
