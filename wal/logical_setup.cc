#include "wal/logical_setup.h"

#include <fmt/format.h>

#include "wal/query_rows.h"
#include "wal/walsender.h"

namespace walvault::wal {
namespace {

unsigned major_of(const Connection& connection) {
    return server_major_of(static_cast<unsigned>(connection.server_version_num()));
}

Task<Result<std::vector<LogicalSlot>>> read_slots(Connection& sql) {
    WV_CO_TRY(auto result,
              co_await sql.query_one(
                  "SELECT slot_name, active, two_phase, confirmed_flush_lsn, "
                  "restart_lsn, "
                  "coalesce(wal_status, ''), coalesce(greatest(0, (CASE WHEN "
                  "pg_catalog.pg_is_in_recovery() THEN "
                  "pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END) "
                  "- restart_lsn), "
                  "0)::bigint, catalog_xmin, pg_catalog.age(catalog_xmin) "
                  "FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND "
                  "database = pg_catalog.current_database() ORDER BY slot_name"));
    std::vector<LogicalSlot> slots;
    for (std::size_t row = 0; row < result.rows.size(); ++row) {
        LogicalSlot slot;
        slot.name = text_at(result, row, 0);
        slot.active = true_at(result, row, 1);
        slot.two_phase = true_at(result, row, 2);
        if (const std::string text = text_at(result, row, 3); !text.empty()) {
            WV_CO_TRY(slot.confirmed_flush_lsn, parse_lsn(text));
        }
        if (const std::string text = text_at(result, row, 4); !text.empty()) {
            WV_CO_TRY(slot.restart_lsn, parse_lsn(text));
        }
        slot.wal_status = text_at(result, row, 5);
        WV_CO_TRY(slot.retained_bytes, number_at<std::uint64_t>(result, row, 6));
        if (!text_at(result, row, 7).empty()) {
            WV_CO_TRY(slot.catalog_xmin, number_at<Xid>(result, row, 7));
            WV_CO_TRY(slot.catalog_xmin_age, number_at<std::int64_t>(result, row, 8));
        }
        slots.push_back(std::move(slot));
    }
    co_return slots;
}

Task<Result<std::string>> oldest_transaction(Connection& connection) {
    WV_CO_TRY(auto found, co_await connection.query_one(
                              "SELECT * FROM (SELECT xact_start, pg_catalog.format('process %s of "
                              "role %s, in a transaction since "
                              "%s', pid, usename, xact_start) FROM pg_catalog.pg_stat_activity "
                              "WHERE backend_xid IS NOT NULL "
                              "AND pid <> pg_catalog.pg_backend_pid() UNION ALL SELECT prepared, "
                              "pg_catalog.format('the prepared "
                              "transaction %L of role %s, since %s', gid, owner, prepared) FROM "
                              "pg_catalog.pg_prepared_xacts) t "
                              "ORDER BY 1 LIMIT 1"));
    co_return text_at(found, 0, 1);
}

std::string create_command(const LogicalSlotOptions& options, unsigned major) {
    std::string command = "CREATE_REPLICATION_SLOT " + quote_identifier(options.slot);
    if (options.temporary) command += " TEMPORARY";
    command += " LOGICAL pgoutput ";
    if (major < 15) return command + "EXPORT_SNAPSHOT";
    command += "(SNAPSHOT 'export'";
    if (options.two_phase) command += ", TWO_PHASE";
    if (options.failover && !options.temporary && major >= 17) command += ", FAILOVER";
    return command + ")";
}

Task<Error> explain_creation(Connection& replication, LogicalSlotOptions options, Error error) {
    const std::string state = replication.sqlstate();
    if (state == "42710") error.code = Errc::refused;
    if (state == "55P03") {
        error.message =
            fmt::format("a transaction that was running before did not end within {} ms",
                        options.wait_timeout.count());
        auto oldest = co_await oldest_transaction(replication);
        if (oldest && !oldest->empty()) error.hint = "The oldest one now: " + *oldest + ".";
    }
    if (state == "55000") {
        auto level = co_await show(replication, "wal_level");
        if (level && *level != "logical") {
            error.code = Errc::refused;
            error.hint = fmt::format(
                "wal_level is {}. Set wal_level = logical and restart PostgreSQL.", *level);
        }
    }
    co_return error;
}

}  // namespace

const LogicalSlot* DatabaseFacts::slot(const std::string& name) const {
    for (const LogicalSlot& slot : slots)
        if (slot.name == name) return &slot;
    return nullptr;
}

Task<Result<DatabaseFacts>> database_facts(Connection& sql) {
    WV_CO_TRY(auto result,
              co_await sql.query_one(
                  "SELECT d.datname, current_user, r.rolreplication OR r.rolsuper, "
                  "pg_catalog.has_database_privilege(d.oid, 'CREATE'), "
                  "pg_catalog.current_setting('wal_level'), "
                  "pg_catalog.current_setting('server_encoding'), pg_catalog.pg_is_in_recovery() "
                  "FROM pg_catalog.pg_database d, pg_catalog.pg_roles r WHERE d.datname = "
                  "pg_catalog.current_database() AND r.rolname = current_user"));
    if (result.rows.size() != 1)
        co_return fail(Errc::corrupt, "the server does not know its own database or role");
    DatabaseFacts facts;
    facts.server_version_num = sql.server_version_num();
    facts.database = text_at(result, 0, 0);
    facts.role = text_at(result, 0, 1);
    facts.role_may_replicate = true_at(result, 0, 2);
    facts.role_may_publish = true_at(result, 0, 3);
    facts.wal_level = text_at(result, 0, 4);
    facts.server_encoding = text_at(result, 0, 5);
    facts.in_recovery = true_at(result, 0, 6);
    WV_CO_TRY(facts.slots, co_await read_slots(sql));
    co_return facts;
}

Task<Result<std::vector<std::string>>> unknown_columns(Connection& sql,
                                                       std::vector<std::string> paths) {
    std::vector<std::string> unknown;
    if (paths.empty()) co_return unknown;
    std::string list;
    for (const std::string& path : paths)
        list += (list.empty() ? "" : ", ") + quote_literal(path);
    WV_CO_TRY(const QueryResult found,
              co_await sql.query_one(fmt::format(
                  "SELECT p FROM unnest(ARRAY[{}]::text[]) AS p WHERE NOT EXISTS (SELECT FROM "
                  "pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN "
                  "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT "
                  "a.attisdropped AND c.relkind IN ('r', 'p') AND "
                  "n.nspname || '.' || c.relname || '.' || a.attname = p)",
                  list)));
    for (std::size_t row = 0; row < found.rows.size(); ++row)
        unknown.push_back(text_at(found, row, 0));
    co_return unknown;
}

Result<> check_journal_possible(const DatabaseFacts& facts) {
    const std::string what =
        fmt::format("the database \"{}\" cannot be journaled: ", facts.database);
    if (facts.in_recovery)
        return fail(Errc::refused, what + "this server is a standby",
                    "Name the primary in the conninfo as well.");
    if (facts.wal_level != "logical")
        return fail(Errc::refused, what + "wal_level is " + facts.wal_level,
                    "ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL. Everything "
                    "else of walvault works "
                    "without it.");
    if (!facts.role_may_replicate)
        return fail(Errc::refused,
                    what + fmt::format("the role \"{}\" may not replicate", facts.role),
                    "ALTER ROLE " + quote_identifier(facts.role) + " REPLICATION");
    if (!facts.role_may_publish)
        return fail(
            Errc::refused,
            what + fmt::format("the role \"{}\" may not make publications in it", facts.role),
            fmt::format("GRANT CREATE ON DATABASE {} TO {}", quote_identifier(facts.database),
                        quote_identifier(facts.role)));
    return {};
}

Task<Result<CreatedSlot>> create_logical_slot(Connection& replication, LogicalSlotOptions options) {
    // It waits for transactions by their locks, each of which this bounds.
    WV_CO_CHECK(co_await replication.query(
        fmt::format("SET lock_timeout = {}", options.wait_timeout.count())));
    auto result = co_await replication.query_one(create_command(options, major_of(replication)));
    if (!result) {
        auto error = co_await explain_creation(replication, options, std::move(result).error());
        co_return fail_while("create the slot \"" + options.slot + "\"", std::move(error));
    }
    CreatedSlot created;
    WV_CO_TRY(created.consistent_lsn, parse_lsn(text_at(*result, 0, 1)));
    created.snapshot_name = text_at(*result, 0, 2);
    if (created.snapshot_name.empty())
        co_return fail(Errc::corrupt, "the server made a slot and exported no snapshot");
    co_return created;
}

}  // namespace walvault::wal
