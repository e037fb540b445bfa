// The keys of [server.NAME.journal] and of [class.NAME].
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "agent/config_keys.h"
#include "agent/config_values.h"
#include "agent/render.h"
#include "wal/table_pattern.h"

namespace walvault::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::vector<std::string> items_of(const std::string& text) {
    std::vector<std::string> items;
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t comma = std::min(text.find(", ", from), text.size());
        items.push_back(text.substr(from, comma - from));
        from = comma + 2;
    }
    return items;
}

Result<> check_patterns(const std::vector<std::string>& items) {
    if (auto parsed = wal::TablePatterns::parse(items); !parsed)
        return wrong_value(
            parsed.error().message,
            "schema.table with * and ?, and ! before what is left out: the last one that fits "
            "decides");
    return {};
}

Result<> set_databases(Config&, ServerConfig* server, const std::string& text) {
    server->journal.databases = items_of(text);
    std::set<std::string> seen;
    for (const std::string& name : server->journal.databases)
        if (!seen.insert(name).second)
            return wrong_value(fmt::format("the database \"{}\" is named twice", printable(name)));
    for (const std::string& name : server->journal.databases)
        if (name.empty() || name.size() > 63)
            return wrong_value(
                fmt::format("\"{}\" is not a database's name of 1 to 63 bytes", printable(name)));
    return {};
}

Result<> set_tables(Config&, ServerConfig* server, const std::string& text) {
    server->journal.tables = items_of(text);
    if (server->journal.tables.empty())
        return wrong_value("no table is named", "for example [\"public.*\", \"!public.sessions\"]");
    return check_patterns(server->journal.tables);
}

Result<> set_mask(Config&, ServerConfig* server, const std::string& text) {
    JournalConfig& journal = server->journal;
    journal.masked_columns.clear();
    journal.dropped_columns.clear();
    for (const std::string& item : items_of(text)) {
        const bool is_dropped = item.ends_with("=drop");
        const std::string column = item.substr(0, item.size() - (is_dropped ? 5 : 0));
        const std::size_t first = column.find('.');
        const std::size_t last = column.rfind('.');
        const bool good = first != std::string::npos && first > 0 && last > first + 1 &&
                          last + 1 < column.size() && column.find('=') == std::string::npos;
        if (!good)
            return wrong_value(
                fmt::format("\"{}\" is not a column like public.users.email", printable(item)),
                "schema.table.column keeps a keyed hash of its values, "
                "schema.table.column=drop nothing of them");
        (is_dropped ? journal.dropped_columns : journal.masked_columns).push_back(column);
    }
    return {};
}

Result<> set_slot(Config&, ServerConfig* server, const std::string& text) {
    const bool good =
        !text.empty() && text.size() <= 40 &&
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
    if (!good)
        return wrong_value(fmt::format(
            "\"{}\" is not how a slot's name begins: 1 to 40 of a-z, 0-9 and _", printable(text)));
    server->journal.slot = text;
    return {};
}

Result<> set_slot_give_up(Config&, ServerConfig* server, const std::string& text) {
    server->journal.slot_give_up_bytes.reset();
    if (text == "off") return {};
    WV_TRY(server->journal.slot_give_up_bytes, size_between(text, 64ull << 20, 1ull << 50));
    return {};
}

Result<> set_flush_interval(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->journal.flush_interval, duration_between(text, milliseconds(10), seconds(60)));
    return {};
}

Result<> set_staging(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->journal.staging_bytes, size_between(text, 64ull << 20, 1ull << 50));
    return {};
}

Result<> set_snapshots(Config&, ServerConfig* server, const std::string& text) {
    if (text != "on" && text != "off")
        return wrong_value(fmt::format("\"{}\" is neither on nor off", printable(text)));
    server->journal.snapshots = text == "on";
    return {};
}

Result<> set_class_tables(ClassConfig& data_class, const std::string& text) {
    data_class.tables = items_of(text);
    return check_patterns(data_class.tables);
}

constexpr std::array kKeys{
    ConfigKey{"server.*.journal.databases", kList, "", false, "",
              "names of databases; empty: no journal",
              "Whose row changes are kept, for history, changes, rows and undo. Needs wal_level = "
              "logical, and a role with REPLICATION, CREATE there, and the tables' owners' rights: "
              "walvault check tells.",
              set_databases},
    ConfigKey{"server.*.journal.tables", kList, "*.*", false, "",
              "patterns schema.table with * and ?, and ! before what is left out",
              "Which tables; the last pattern that fits decides. New ones join by themselves.",
              set_tables},
    ConfigKey{"server.*.journal.mask", kList, "", false, "",
              "columns schema.table.column, or schema.table.column=drop",
              "Columns of which a keyed hash is kept in place of the value, or nothing.", set_mask},
    ConfigKey{"server.*.journal.slot", kText, "walvault_journal", false, "",
              "1 to 40 of a-z, 0-9 and _",
              "How the logical slots are called: this, _ and the database's name.", set_slot},
    ConfigKey{"server.*.journal.slot_give_up", kText, "off", false, "",
              "a size, 64MiB to 1024TiB, or off",
              "Drop a journal's slot, and record a gap, when it holds back more WAL than this.",
              set_slot_give_up},
    ConfigKey{
        "server.*.journal.flush_interval", kText, "500ms", false, "", "a duration, 10ms to 60s",
        "The longest that a committed change waits before it is made durable.", set_flush_interval},
    ConfigKey{"server.*.journal.staging", kText, "20GiB", false, "", "a size, 64MiB to 1024TiB",
              "Room on the disk for large transactions that are in progress.", set_staging},
    ConfigKey{"server.*.journal.snapshots", kText, "on", false, "", "on or off",
              "Read the rows that a table has when it joins, so that rows --at knows them all.",
              set_snapshots},
    ConfigKey{.pattern = "class.*.tables",
              .kind = kList,
              .fallback = "",
              .required = true,
              .example = "*.users",
              .bounds = "patterns schema.table with * and ?, and ! before what is left out",
              .explanation = "Tables whose journal has packs and keys of its own.",
              .set_class = set_class_tables},
};

}  // namespace

std::span<const ConfigKey> journal_keys() { return kKeys; }

}  // namespace walvault::agent
