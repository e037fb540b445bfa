#include "agent/init_server.h"

#include <fmt/format.h>

#include <array>
#include <exception>
#include <optional>
#include <string_view>

#include "agent/config_keys.h"
#include "base/asio.h"
#include "wal/connection.h"
#include "wal/conninfo.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

constexpr const char* kRoleSql =
    R"(-- The role that walvault connects with. Run as a superuser, connected to the database "postgres"
-- (the dbname of the agent's conninfo). May be run again. `walvault init --print-sql` prints this too.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'walvault') THEN
        CREATE ROLE walvault;
    END IF;
END
$$;
ALTER ROLE walvault LOGIN REPLICATION;
-- Settings, the state of slots, and statistics.
GRANT pg_monitor TO walvault;
-- For `walvault point NAME`.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO walvault;
)";

constexpr const char* kFactsSql =
    "SELECT pg_catalog.current_setting('server_version_num'), "
    "pg_catalog.current_setting('wal_level'), "
    "pg_catalog.current_setting('max_slot_wal_keep_size'), current_user";

constexpr const char* kRoleReadySql =
    "SELECT coalesce((SELECT rolcanlogin AND (rolreplication OR rolsuper) "
    "AND pg_catalog.pg_has_role(rolname, 'pg_monitor', 'USAGE') "
    "AND pg_catalog.has_function_privilege(rolname, 'pg_catalog.pg_create_restore_point(text)', "
    "'EXECUTE') "
    "FROM pg_catalog.pg_roles WHERE rolname = 'walvault'), false)";

// 150020 -> "15.20".
std::string version_text(const std::string& number) {
    int value = std::atoi(number.c_str());
    return fmt::format("{}.{}", value / 10000, value % 10000);
}

// The first row's columns, nulls as empty texts; as many as asked for.
Result<std::vector<std::string>> one_row(const wal::QueryResult& result, std::size_t count) {
    if (result.rows.size() != 1 || result.rows[0].size() != count)
        return fail(
            Errc::unsupported,
            fmt::format("the server answered with {} rows instead of one", result.rows.size()));
    std::vector<std::string> values;
    for (const auto& value : result.rows[0])
        values.push_back(value.value_or(""));
    return values;
}

Task<Result<bool>> role_is_ready(wal::Connection& sql) {
    std::string query = kRoleReadySql;
    WV_CO_TRY(wal::QueryResult result, co_await sql.query_one(query));
    WV_CO_TRY(std::vector<std::string> row, one_row(result, 1));
    co_return row[0] == "t";
}

Task<Result<ServerSetup>> set_up(std::string conninfo, bool dry_run) {
    wal::Connection::Options options;
    options.conninfo = std::move(conninfo);
    options.application_name = "walvault init";
    WV_CO_TRY(std::unique_ptr<wal::Connection> sql,
              co_await wal::Connection::connect(std::move(options)));
    WV_CO_CHECK(wal::server_version_of(*sql));
    std::string query = kFactsSql;
    WV_CO_TRY(wal::QueryResult facts, co_await sql->query_one(query));
    WV_CO_TRY(std::vector<std::string> row, one_row(facts, 4));
    ServerSetup setup;
    setup.version = version_text(row[0]);
    setup.wal_level = row[1];
    setup.slot_size_limit = row[2];
    setup.connected_as = row[3];
    WV_CO_TRY(setup.role_was_ready, co_await role_is_ready(*sql));
    setup.role_is_ready = setup.role_was_ready;
    if (setup.role_was_ready || dry_run) co_return setup;
    std::string statements = std::string("BEGIN;\n") + kRoleSql + "COMMIT;";
    auto made = co_await sql->query(statements);
    if (!made) {
        setup.role_problem = made.error().message;
        co_return setup;
    }
    WV_CO_TRY(setup.role_is_ready, co_await role_is_ready(*sql));
    co_return setup;
}

// A value of a conninfo, quoted where it must be.
std::string quoted(const std::string& value) {
    if (!value.empty() && value.find_first_of(" '\\\t\n") == std::string::npos) return value;
    std::string out = "'";
    for (char c : value) {
        if (c == '\'' || c == '\\') out += '\\';
        out += c;
    }
    return out + '\'';
}

}  // namespace

std::string role_sql() { return kRoleSql; }

Result<ServerSetup> set_up_server(const std::string& conninfo, bool dry_run) {
    asio::io_context loop(1);
    std::optional<Result<ServerSetup>> answer;
    std::exception_ptr failure;
    asio::co_spawn(loop, set_up(conninfo, dry_run),
                   [&](std::exception_ptr thrown, Result<ServerSetup> result) {
                       failure = thrown;
                       answer = std::move(result);
                   });
    loop.run();
    if (failure || !answer) return fail(Errc::unavailable, "talking to PostgreSQL broke off");
    return std::move(*answer);
}

Result<std::string> agent_conninfo(const std::string& conninfo) {
    if (holds_password(conninfo))
        return fail(Errc::invalid_argument, "the connection string holds a password",
                    "use peer authentication, passfile=/path, a .pgpass file or a service file");
    // What says where the server is and how to trust it; who connects to what is the agent's own.
    static constexpr std::array<std::string_view, 13> kKept{
        "service", "host",        "hostaddr", "port",      "passfile", "sslmode",        "sslcert",
        "sslkey",  "sslrootcert", "sslcrl",   "sslcrldir", "sslsni",   "channel_binding"};
    wal::Connection::Options options;
    options.conninfo = conninfo;
    WV_TRY(wal::ConnectSettings settings, wal::connect_settings(options));
    std::string out;
    for (std::string_view name : kKept)
        for (const auto& [key, value] : settings)
            if (key == name) out += fmt::format("{}={} ", key, quoted(value));
    return out + "user=walvault dbname=postgres";
}

}  // namespace walvault::agent
