#include "wal/logical_session.h"

#include <fmt/format.h>

#include "wal/walsender.h"

namespace walvault::wal {
namespace {

// What output functions look at, and what would end a long copy.
constexpr const char* kSettings =
    "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
    "SET idle_session_timeout = 0; "
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; "
    "SET extra_float_digits = 3; SET bytea_output = hex; SET lc_monetary = 'C'; "
    "SET quote_all_identifiers = off; SET standard_conforming_strings = on; SET search_path = ''; "
    "SET row_security = off";

}  // namespace

Task<Result<LogicalSession>> connect_to_database(DatabaseOptions options, Connection::Mode mode) {
    Connection::Options wanted;
    wanted.conninfo = std::move(options.conninfo);
    wanted.mode = mode;
    wanted.database = std::move(options.database);
    wanted.only = std::move(options.only);
    wanted.writable = true;
    wanted.application_name = std::move(options.application_name);
    wanted.hangup = options.hangup;
    LogicalSession session;
    WV_CO_TRY(session.connection, co_await Connection::connect(std::move(wanted)));
    WV_CO_TRY(const ServerVersion* version, server_version_of(*session.connection));
    std::string settings = kSettings;
    if (version->major >= 17) settings += "; SET transaction_timeout = 0";
    WV_CO_CHECK(co_await session.connection->query(std::move(settings)));
    // In a SQL_ASCII database the server would check what it sends against UTF8, and names, too,
    // can be any bytes: so before anything else is asked.
    WV_CO_TRY(session.server_encoding, co_await show(*session.connection, "server_encoding"));
    if (session.server_encoding == "SQL_ASCII")
        WV_CO_CHECK(co_await session.connection->query("SET client_encoding = SQL_ASCII"));
    WV_CO_TRY(auto name,
              co_await session.connection->query_one("SELECT pg_catalog.current_database()"));
    if (name.rows.size() != 1 || name.rows[0].size() != 1 || !name.rows[0][0])
        co_return fail(Errc::corrupt, "the server does not say which database it is");
    session.database = *name.rows[0][0];
    co_return session;
}

}  // namespace walvault::wal
