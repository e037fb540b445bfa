#include "wal/server_facts.h"

#include <fmt/format.h>

#include "wal/query_rows.h"

namespace walvault::wal {
namespace {

std::string string_array(const std::vector<std::string>& texts) {
    std::string list;
    for (const std::string& text : texts) {
        if (!list.empty()) list += ", ";
        list += quote_literal(text);
    }
    return "ARRAY[" + list + "]::text[]";
}

// Whether `path` is in `directory`, by whole components.
bool is_below(const std::string& path, const std::string& directory) {
    return path.size() > directory.size() && path.starts_with(directory) &&
           (directory.ends_with('/') || path[directory.size()] == '/');
}

// Empty where the role may not read the file, or the file is not there.
Task<Result<std::string>> read_server_file(Connection& sql, std::string path) {
    if (path.empty()) co_return std::string();
    auto result = co_await sql.query_one("SELECT pg_catalog.pg_read_file(" + quote_literal(path) +
                                         ", 0, 1048576, true)");
    if (result) co_return text_at(*result, 0, 0);
    // A file that cannot be read is a fact about the server; a lost connection is not.
    if (result.error().code == Errc::unavailable || result.error().code == Errc::cancelled)
        co_return fail(result.error());
    co_return std::string();
}

}  // namespace

Task<Result<SlotFacts>> slot_facts(Connection& sql, std::string slot) {
    // A standby has no current WAL position of its own to write; what it replayed stands in.
    WV_CO_TRY(
        auto result,
        co_await sql.query_one(
            "SELECT active, coalesce(active_pid, 0), restart_lsn, coalesce(wal_status, ''), "
            "safe_wal_size, coalesce(greatest(0, (CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
            "pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END) "
            "- restart_lsn), 0)::bigint, coalesce((SELECT r.sync_state FROM "
            "pg_catalog.pg_stat_replication r WHERE r.pid = s.active_pid), ''), "
            "pg_catalog.current_setting('synchronous_commit') "
            "FROM pg_catalog.pg_replication_slots s WHERE slot_name = " +
            quote_literal(slot)));
    SlotFacts facts;
    if (result.rows.empty()) co_return facts;
    facts.exists = true;
    facts.active = text_at(result, 0, 0) == "t";
    WV_CO_TRY(facts.active_pid, number_at<int>(result, 0, 1));
    if (std::string restart = text_at(result, 0, 2); !restart.empty()) {
        WV_CO_TRY(Lsn lsn, parse_lsn(restart));
        facts.restart_lsn = lsn;
    }
    facts.wal_status = text_at(result, 0, 3);
    if (!text_at(result, 0, 4).empty()) {
        WV_CO_TRY(std::int64_t safe, number_at<std::int64_t>(result, 0, 4));
        facts.safe_wal_bytes = safe;
    }
    WV_CO_TRY(facts.retained_bytes, number_at<std::uint64_t>(result, 0, 5));
    facts.sync_state = text_at(result, 0, 6);
    facts.synchronous_commit = text_at(result, 0, 7);
    co_return facts;
}

Task<Result<>> drop_slot_by_sql(Connection& sql, std::string slot) {
    auto result = co_await sql.query_one(
        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM "
        "pg_catalog.pg_replication_slots WHERE slot_name = " +
        quote_literal(slot));
    if (!result) co_return fail_while("drop the slot \"" + slot + "\"", result.error());
    co_return Result<>();
}

Task<Result<>> drop_logical_slot_by_sql(Connection& sql, std::string slot) {
    const std::string doing = "drop the slot \"" + slot + "\"";
    // Whose it is is looked at by the statement that drops it.
    auto result = co_await sql.query_one(
        "SELECT own, database, CASE WHEN own THEN "
        "pg_catalog.pg_drop_replication_slot(slot_name)::text END FROM (SELECT slot_name, "
        "database, coalesce(database = pg_catalog.current_database(), false) AS own FROM "
        "pg_catalog.pg_replication_slots) s WHERE slot_name = " +
        quote_literal(slot));
    if (!result) co_return fail_while(doing, std::move(result).error());
    if (result->rows.empty() || true_at(*result, 0, 0)) co_return Result<>();
    const std::string database = text_at(*result, 0, 1);
    const std::string what =
        database.empty() ? "it is a physical slot" : "it is of the database \"" + database + "\"";
    co_return fail_while(
        doing, {Errc::refused, what + ", and not a logical one of this database",
                "Name the journal's slot otherwise, or drop this one yourself if it is not used."});
}

Task<Result<ConfigurationFacts>> configuration_facts(Connection& sql) {
    ConfigurationFacts facts;
    // Connection strings and commands of the old server have no place in a restored one's settings,
    // and may hold passwords.
    WV_CO_TRY(auto settings,
              co_await sql.query_one(
                  "SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.pg_settings "
                  "WHERE source IN ('configuration file', 'command line') "
                  "AND name NOT IN ('primary_conninfo', 'ssl_passphrase_command') ORDER BY name"));
    for (const auto& row : settings.rows)
        if (row.size() == 2 && row[0]) facts.settings[*row[0]] = row[1].value_or(std::string());
    WV_CO_TRY(auto places,
              co_await sql.query_one(
                  "SELECT pg_catalog.current_setting('data_checksums'), "
                  "pg_catalog.current_setting('server_encoding'), s.data_directory, s.config_file, "
                  "s.hba_file, s.ident_file, (pg_catalog.date_part('epoch', "
                  "pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8 FROM (SELECT "
                  "max(setting) FILTER (WHERE name = 'data_directory') AS data_directory, "
                  "max(setting) FILTER (WHERE name = 'config_file') AS config_file, "
                  "max(setting) FILTER (WHERE name = 'hba_file') AS hba_file, "
                  "max(setting) FILTER (WHERE name = 'ident_file') AS ident_file "
                  "FROM pg_catalog.pg_settings) s"));
    facts.data_checksums = text_at(places, 0, 0) == "on";
    facts.server_encoding = text_at(places, 0, 1);
    facts.data_directory = text_at(places, 0, 2);
    facts.config_file = text_at(places, 0, 3);
    facts.hba_file = text_at(places, 0, 4);
    facts.ident_file = text_at(places, 0, 5);
    WV_CO_TRY(auto server_at_us, number_at<std::int64_t>(places, 0, 6));
    facts.server_at = WallTime(Micros(server_at_us));
    facts.configuration_outside = !facts.config_file.empty() && !facts.data_directory.empty() &&
                                  !is_below(facts.config_file, facts.data_directory);
    WV_CO_TRY(facts.hba, co_await read_server_file(sql, facts.hba_file));
    WV_CO_TRY(facts.ident, co_await read_server_file(sql, facts.ident_file));
    co_return facts;
}

Task<Result<Lsn>> create_restore_point(Connection& sql, std::string name) {
    if (name.empty() || name.size() > 63 || name.find('\0') != std::string::npos)
        co_return fail(
            Errc::invalid_argument,
            fmt::format("a restore point's name has 1 to 63 bytes, this one {}", name.size()));
    auto result = co_await sql.query_one("SELECT pg_catalog.pg_create_restore_point(" +
                                         quote_literal(name) + ")");
    if (!result) {
        Error error = std::move(result).error();
        if (sql.sqlstate() == "42501")
            error.hint =
                "As a superuser, in this database: GRANT EXECUTE ON FUNCTION "
                "pg_catalog.pg_create_restore_point(text) TO the role walvault connects as.";
        co_return fail_while("create the restore point \"" + name + "\"", std::move(error));
    }
    co_return parse_lsn(text_at(*result, 0, 0));
}

Task<Result<std::map<std::string, std::string>>> relation_names(Connection& sql,
                                                                std::vector<std::string> files) {
    std::map<std::string, std::string> names;
    if (files.empty()) co_return names;
    // "tablespace/database/relation"; the database's default tablespace is 0 in
    // pg_filenode_relation.
    WV_CO_TRY(auto result,
              co_await sql.query_one(
                  "WITH f AS (SELECT file, split_part(file, '/', 1)::oid AS spc, split_part(file, "
                  "'/', 2)::oid "
                  "AS db, split_part(file, '/', 3)::oid AS rel FROM unnest(" +
                  string_array(files) +
                  ") AS file WHERE file ~ '^[0-9]{1,10}/[0-9]{1,10}/[0-9]{1,10}$'), "
                  "d AS (SELECT oid, dattablespace FROM pg_catalog.pg_database WHERE datname = "
                  "pg_catalog.current_database()) "
                  "SELECT f.file, pg_catalog.quote_ident(n.nspname) || '.' || "
                  "pg_catalog.quote_ident(c.relname) "
                  "FROM f JOIN d ON f.db IN (0, d.oid) JOIN pg_catalog.pg_class c ON c.oid = "
                  "pg_catalog.pg_filenode_relation(CASE WHEN f.spc = d.dattablespace THEN 0 ELSE "
                  "f.spc END, f.rel) "
                  "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"));
    for (const auto& row : result.rows)
        if (row.size() == 2 && row[0] && row[1]) names[*row[0]] = *row[1];
    co_return names;
}

}  // namespace walvault::wal
