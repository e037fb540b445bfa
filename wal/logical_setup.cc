#include "wal/logical_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "wal/query_rows.h"
#include "wal/walsender.h"

namespace walvault::wal {
namespace {

using Oid = std::uint32_t;

constexpr int kReadings = 5;  // of the catalogue in one transaction
constexpr int kAttempts = 10;

unsigned major_of(const Connection& connection) {
    return server_major_of(static_cast<unsigned>(connection.server_version_num()));
}

Task<Result<std::vector<LogicalSlot>>> read_slots(Connection& sql) {
    WV_CO_TRY(auto result,
              co_await sql.query_one(
                  "SELECT slot_name, coalesce(plugin, ''), active, two_phase, confirmed_flush_lsn, "
                  "restart_lsn, "
                  "coalesce(wal_status, ''), coalesce(greatest(0, (CASE WHEN "
                  "pg_catalog.pg_is_in_recovery() THEN "
                  "pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END) "
                  "- restart_lsn), "
                  "0)::bigint, safe_wal_size, catalog_xmin, pg_catalog.age(catalog_xmin) "
                  "FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND "
                  "database = pg_catalog.current_database() ORDER BY slot_name"));
    std::vector<LogicalSlot> slots;
    for (std::size_t row = 0; row < result.rows.size(); ++row) {
        LogicalSlot slot;
        slot.name = text_at(result, row, 0);
        slot.plugin = text_at(result, row, 1);
        slot.active = true_at(result, row, 2);
        slot.two_phase = true_at(result, row, 3);
        if (const std::string text = text_at(result, row, 4); !text.empty()) {
            WV_CO_TRY(slot.confirmed_flush_lsn, parse_lsn(text));
        }
        if (const std::string text = text_at(result, row, 5); !text.empty()) {
            WV_CO_TRY(slot.restart_lsn, parse_lsn(text));
        }
        slot.wal_status = text_at(result, row, 6);
        WV_CO_TRY(slot.retained_bytes, number_at<std::uint64_t>(result, row, 7));
        if (!text_at(result, row, 8).empty()) {
            WV_CO_TRY(slot.safe_wal_bytes, number_at<std::int64_t>(result, row, 8));
        }
        if (!text_at(result, row, 9).empty()) {
            WV_CO_TRY(slot.catalog_xmin, number_at<Xid>(result, row, 9));
            WV_CO_TRY(slot.catalog_xmin_age, number_at<std::int64_t>(result, row, 10));
        }
        slots.push_back(std::move(slot));
    }
    co_return slots;
}

// Indexes as RelationGetIndexList() looks at them for an identity; the candidate has what REPLICA
// IDENTITY USING INDEX asks for.
constexpr const char* kTables =
    "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, "
    "CASE WHEN c.relispartition THEN coalesce(pg_catalog.pg_partition_root(c.oid)::oid, 0) ELSE 0 "
    "END, "
    "coalesce(i.identity, false), coalesce(i.primary_key, false), coalesce(i.deferrable, false), "
    "EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = "
    "'v' "
    "AND NOT a.attisdropped), i.candidate, pg_catalog.pg_has_role(c.relowner, 'USAGE'), "
    "pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c JOIN "
    "pg_catalog.pg_namespace n "
    "ON n.oid = c.relnamespace LEFT JOIN LATERAL (SELECT "
    "bool_or(x.indisreplident AND usable AND x.indpred IS NULL) AS identity, "
    "bool_or(x.indisprimary AND usable) AS primary_key, "
    "bool_or(x.indisprimary AND NOT x.indimmediate) AS deferrable, "
    "min(r.relname::text) FILTER (WHERE usable AND x.indpred IS NULL AND x.indexprs IS NULL AND "
    "NOT EXISTS "
    "(SELECT FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) AS k JOIN "
    "pg_catalog.pg_attribute a "
    "ON a.attrelid = x.indrelid AND a.attnum = k WHERE NOT a.attnotnull)) AS candidate "
    "FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class r ON r.oid = x.indexrelid, "
    "LATERAL (SELECT x.indisvalid AND x.indisunique AND x.indimmediate AS usable) u "
    "WHERE x.indrelid = c.oid) i ON true "
    "WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.oid >= 16384 "
    "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY n.nspname, "
    "c.relname";

CatalogTable::Kind kind_of(const std::string& relkind) {
    if (relkind == "p") return CatalogTable::Kind::partitioned;
    if (relkind == "f") return CatalogTable::Kind::foreign;
    if (relkind == "v") return CatalogTable::Kind::view;
    if (relkind == "m") return CatalogTable::Kind::materialized_view;
    return CatalogTable::Kind::ordinary;
}

CatalogTable::Persistence persistence_of(const std::string& relpersistence) {
    if (relpersistence == "u") return CatalogTable::Persistence::unlogged;
    if (relpersistence == "t") return CatalogTable::Persistence::temporary;
    return CatalogTable::Persistence::permanent;
}

Task<Result<std::vector<CatalogTable>>> read_tables(Connection& sql) {
    WV_CO_TRY(auto result, co_await sql.query_one(kTables));
    std::vector<CatalogTable> tables;
    for (std::size_t row = 0; row < result.rows.size(); ++row) {
        CatalogTable table;
        WV_CO_TRY(table.oid, number_at<Oid>(result, row, 0));
        table.schema = text_at(result, row, 1);
        table.name = text_at(result, row, 2);
        table.kind = kind_of(text_at(result, row, 3));
        table.persistence = persistence_of(text_at(result, row, 4));
        const std::string identity = text_at(result, row, 5);
        if (identity.size() == 1) table.identity = identity.front();
        WV_CO_TRY(table.root, number_at<Oid>(result, row, 6));
        table.identity_index = true_at(result, row, 7);
        table.primary_key = true_at(result, row, 8);
        table.deferrable_primary_key = true_at(result, row, 9);
        table.virtual_columns = true_at(result, row, 10);
        table.candidate_index = text_at(result, row, 11);
        table.owned = true_at(result, row, 12);
        table.owner = text_at(result, row, 13);
        tables.push_back(std::move(table));
    }
    co_return tables;
}

Task<Result<PublicationState>> read_publication(Connection& sql, std::string name,
                                                bool inserts_only) {
    const unsigned major = major_of(sql);
    const char* rows = inserts_only ? "NOT pubupdate AND NOT pubdelete" : "pubupdate AND pubdelete";
    WV_CO_TRY(
        auto found,
        co_await sql.query_one(fmt::format(
            "SELECT pubinsert AND {} AND pubtruncate AND NOT pubviaroot{}, NOT puballtables{}, "
            "(SELECT pg_catalog.string_agg(r.prrelid::text, ',') FROM "
            "pg_catalog.pg_publication_rel r WHERE "
            "r.prpubid = p.oid) FROM pg_catalog.pg_publication p WHERE pubname = {}",
            rows, major >= 18 ? " AND pubgencols = 's'" : "",
            major >= 15 ? " AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s "
                          "WHERE s.pnpubid = "
                          "p.oid)"
                        : "",
            quote_literal(name))));
    PublicationState state;
    if (found.rows.empty()) co_return state;
    state.exists = true;
    state.as_made_here = true_at(found, 0, 0);
    state.names_tables = true_at(found, 0, 1);
    const std::string members = text_at(found, 0, 2);
    for (const char* at = members.data(); at < members.data() + members.size();) {
        Oid oid = 0;
        auto [end, error] = std::from_chars(at, members.data() + members.size(), oid);
        if (error != std::errc())
            co_return fail(Errc::corrupt, "a publication's members are no numbers: " + members);
        state.members.push_back(oid);
        at = end + 1;
    }
    co_return state;
}

// One plan, executed, and then what it takes until no table is in danger: those that were added are
// locked, and what identity they have, they keep. What came up besides meanwhile is for the next
// time.
Task<Result<AppliedPublication>> apply_in_transaction(Connection& sql, std::string name,
                                                      TablePatterns patterns) {
    AppliedPublication applied;
    for (int reading = 0; reading < kReadings; ++reading) {
        WV_CO_TRY(auto request, co_await publication_request(sql, name));
        auto plan = plan_publication(request, patterns);
        if (!plan) co_return fail(std::move(plan).error());
        const bool done = plan->statements.empty() || (applied.changed && plan->in_danger.empty());
        if (!applied.changed) applied.plan = *plan;
        if (done) co_return applied;
        applied.changed = true;
        for (const std::string& statement : plan->statements)
            WV_CO_CHECK(co_await sql.query(statement));
        applied.plan.verdicts = plan->verdicts;
        applied.plan.all_changes = plan->all_changes;
        applied.plan.inserts = plan->inserts;
    }
    co_return fail(Errc::busy, "the tables change faster than they can be published");
}

// The catalogue is not what it was when it was read.
bool changed_meanwhile(const std::string& sqlstate) {
    for (const char* state :
         {"42P01", "42704", "42710", "3F000", "40P01", "40001", "55000", "XX000"})
        if (sqlstate == state) return true;
    return false;
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
                  "SELECT d.datname, d.oid, current_user, r.rolreplication OR r.rolsuper, "
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
    WV_CO_TRY(facts.database_oid, number_at<Oid>(result, 0, 1));
    facts.role = text_at(result, 0, 2);
    facts.role_may_replicate = true_at(result, 0, 3);
    facts.role_may_publish = true_at(result, 0, 4);
    facts.wal_level = text_at(result, 0, 5);
    facts.server_encoding = text_at(result, 0, 6);
    facts.in_recovery = true_at(result, 0, 7);
    WV_CO_TRY(facts.slots, co_await read_slots(sql));
    co_return facts;
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

Task<Result<PublicationRequest>> publication_request(Connection& sql, std::string name) {
    PublicationRequest request;
    request.server_major = major_of(sql);
    WV_CO_TRY(auto role, co_await sql.query_one("SELECT current_user"));
    request.role = text_at(role, 0, 0);
    WV_CO_TRY(request.tables, co_await read_tables(sql));
    WV_CO_TRY(request.all_changes, co_await read_publication(sql, name, false));
    WV_CO_TRY(request.inserts, co_await read_publication(sql, inserts_publication(name), true));
    request.name = std::move(name);
    co_return request;
}

Task<Result<AppliedPublication>> apply_publication(Connection& sql, std::string name,
                                                   const TablePatterns& patterns,
                                                   std::chrono::milliseconds lock_timeout) {
    for (int attempt = 1;; ++attempt) {
        WV_CO_CHECK(co_await sql.query(
            fmt::format("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}",
                        lock_timeout.count())));
        auto applied = co_await apply_in_transaction(sql, name, patterns);
        std::string state = applied ? std::string() : sql.sqlstate();
        auto ended = co_await sql.query(applied ? "COMMIT" : "ROLLBACK");
        if (applied && ended) co_return applied;
        if (applied) state = sql.sqlstate();
        if (attempt < kAttempts && changed_meanwhile(state)) continue;
        co_return fail_while(fmt::format("publish tables in \"{}\"", name),
                             applied ? std::move(ended).error() : std::move(applied).error());
    }
}

Task<Result<>> drop_publication(Connection& sql, std::string name) {
    auto dropped =
        co_await sql.query(fmt::format("DROP PUBLICATION IF EXISTS {}, {}", quote_identifier(name),
                                       quote_identifier(inserts_publication(name))));
    if (!dropped)
        co_return fail_while("drop the publication \"" + name + "\"", std::move(dropped).error());
    co_return Result<>();
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
