#include "agent/init_server.h"

#include <fmt/format.h>

#include <array>
#include <exception>
#include <optional>
#include <string_view>

#include "agent/config_keys.h"
#include "agent/operating_user.h"
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

constexpr const char* kOwnRole = "walvault";

constexpr const char* kFactsSql =
    "SELECT pg_catalog.current_setting('server_version_num'), "
    "pg_catalog.current_setting('wal_level'), "
    "pg_catalog.current_setting('max_slot_wal_keep_size'), current_user";

// %: the role as a literal. A superuser may do all of it.
constexpr const char* kRoleReadySql =
    "SELECT coalesce((SELECT rolcanlogin AND (rolreplication OR rolsuper) "
    "AND pg_catalog.pg_has_role(rolname, 'pg_monitor', 'USAGE') "
    "AND pg_catalog.has_function_privilege(rolname, 'pg_catalog.pg_create_restore_point(text)', "
    "'EXECUTE') "
    "FROM pg_catalog.pg_roles WHERE rolname = %), false), "
    "EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %)";

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

struct RoleState {
    bool exists = false;
    bool is_ready = false;
};

Task<Result<RoleState>> role_state(wal::Connection& sql, std::string role) {
    std::string query;
    for (const char* at = kRoleReadySql; *at != '\0'; ++at)
        if (*at == '%')
            query += wal::quote_literal(role);
        else
            query += *at;
    WV_CO_TRY(wal::QueryResult result, co_await sql.query_one(query));
    WV_CO_TRY(std::vector<std::string> row, one_row(result, 2));
    RoleState state;
    state.is_ready = row[0] == "t";
    state.exists = row[1] == "t";
    co_return state;
}

// As the agent will connect: to ask, and to stream.
Task<Result<>> try_role(std::string conninfo, std::string role) {
    auto as_agent = agent_conninfo(conninfo, role);
    if (!as_agent) co_return fail(as_agent.error());
    for (auto mode : {wal::Connection::Mode::sql, wal::Connection::Mode::physical_replication}) {
        wal::Connection::Options options;
        options.conninfo = *as_agent;
        options.mode = mode;
        options.application_name = "walvault init";
        auto connected = co_await wal::Connection::connect(std::move(options));
        if (!connected) co_return fail(connected.error());
        (*connected)->close();
    }
    co_return Result<>();
}

// Makes the role where it is missing; what keeps it from that goes into the answer.
Task<Result<>> make_role(wal::Connection& sql, ServerSetup& setup) {
    std::string statements = std::string("BEGIN;\n") + kRoleSql + "COMMIT;";
    auto made = co_await sql.query(statements);
    if (!made) {
        setup.role_problem = made.error().message;
        std::string rollback = "ROLLBACK";
        auto ended = co_await sql.query(rollback);
        if (!ended) co_return fail(ended.error());
        co_return Result<>();
    }
    auto state = co_await role_state(sql, setup.agent_role);
    if (!state) co_return fail(state.error());
    setup.role_is_ready = state->is_ready;
    co_return Result<>();
}

// Tries the role, and where it is not let in the one of this session. `made`: the role is new, and
// goes again if nobody can use it.
Task<Result<>> choose_role(wal::Connection& sql, std::string conninfo, bool made,
                           ServerSetup& setup) {
    if (setup.role_is_ready) {
        auto tried = co_await try_role(conninfo, setup.agent_role);
        if (tried) co_return Result<>();
        setup.role_is_ready = false;
        setup.role_problem = tried.error().message;
    }
    auto own = co_await role_state(sql, setup.connected_as);
    if (!own) co_return fail(own.error());
    if (!own->is_ready) co_return Result<>();
    auto tried = co_await try_role(conninfo, setup.connected_as);
    if (!tried) co_return Result<>();
    if (made) {
        std::string statements =
            std::string("DROP OWNED BY ") + kOwnRole + "; DROP ROLE " + kOwnRole;
        auto dropped = co_await sql.query(statements);
        if (!dropped) co_return fail(dropped.error());
    }
    setup.agent_role = setup.connected_as;
    setup.role_is_ready = setup.role_was_ready = true;
    setup.role_problem.clear();
    co_return Result<>();
}

Task<Result<ServerSetup>> set_up(ServerRequest request) {
    wal::Connection::Options options;
    options.conninfo = request.conninfo;
    options.application_name = "walvault init";
    // No role is made on a standby.
    options.writable = true;
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
    setup.agent_role = request.agent_role.empty() ? kOwnRole : request.agent_role;
    auto before = co_await role_state(*sql, setup.agent_role);
    if (!before) co_return fail(before.error());
    setup.role_was_ready = setup.role_is_ready = before->is_ready;
    if (!before->is_ready && setup.agent_role != kOwnRole)
        setup.role_problem = "it lacks LOGIN, REPLICATION, pg_monitor or a grant, or is not there";
    if (request.dry_run) co_return setup;
    if (!before->is_ready && setup.agent_role == kOwnRole) {
        auto made = co_await make_role(*sql, setup);
        if (!made) co_return fail(made.error());
    }
    if (!request.agent_role.empty()) co_return setup;
    const bool made = !before->exists && setup.role_is_ready;
    auto chosen = co_await choose_role(*sql, request.conninfo, made, setup);
    if (!chosen) co_return fail(chosen.error());
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

Result<ServerSetup> set_up_server(const ServerRequest& request) {
    EffectiveUser as_owner(request.owner);
    asio::io_context loop(1);
    std::optional<Result<ServerSetup>> answer;
    std::exception_ptr failure;
    asio::co_spawn(loop, set_up(request),
                   [&](std::exception_ptr thrown, Result<ServerSetup> result) {
                       failure = thrown;
                       answer = std::move(result);
                   });
    loop.run();
    if (failure || !answer) return fail(Errc::unavailable, "talking to PostgreSQL broke off");
    return std::move(*answer);
}

Result<std::string> agent_conninfo(const std::string& conninfo, const std::string& role) {
    if (holds_password(conninfo))
        return fail(Errc::invalid_argument, "the connection string holds a password",
                    "use peer authentication, passfile=/path, a .pgpass file or a service file");
    // What says where the server is and how to trust it; who connects to what is the agent's own.
    static constexpr std::array<std::string_view, 21> kKept{"service",
                                                            "host",
                                                            "hostaddr",
                                                            "port",
                                                            "target_session_attrs",
                                                            "load_balance_hosts",
                                                            "connect_timeout",
                                                            "passfile",
                                                            "sslmode",
                                                            "sslcert",
                                                            "sslkey",
                                                            "sslrootcert",
                                                            "sslcrl",
                                                            "sslcrldir",
                                                            "sslsni",
                                                            "ssl_min_protocol_version",
                                                            "ssl_max_protocol_version",
                                                            "gssencmode",
                                                            "krbsrvname",
                                                            "requirepeer",
                                                            "channel_binding"};
    wal::Connection::Options options;
    options.conninfo = conninfo;
    WV_TRY(wal::ConnectSettings settings, wal::connect_settings(options));
    std::string out;
    for (std::string_view name : kKept)
        for (const auto& [key, value] : settings)
            if (key == name) out += fmt::format("{}={} ", key, quoted(value));
    return out + "user=" + quoted(role) + " dbname=postgres";
}

Result<std::string> role_of_conninfo(const std::string& conninfo) {
    wal::Connection::Options options;
    options.conninfo = conninfo;
    WV_TRY(wal::ConnectSettings settings, wal::connect_settings(options));
    for (const auto& [key, value] : settings)
        if (key == "user") return value;
    return std::string();
}

}  // namespace walvault::agent
