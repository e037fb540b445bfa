// Connections to one database whose values come as text under fixed settings: the same text for the
// same value from a slot and from a query, whatever the role's, the database's and the server's
// settings are.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "wal/connection.h"

namespace walvault::wal {

struct DatabaseOptions {
    std::string conninfo;
    std::string database;  // empty: the conninfo's
    std::optional<ServerAddress>
        only;  // of the conninfo's servers this one alone; else one that takes writes
    std::string application_name = "walvault journal";
    Hangup hangup;
};

struct LogicalSession {
    std::unique_ptr<Connection> connection;
    std::string database;
    // Values come as UTF8, except from SQL_ASCII: there as the bytes that are stored, of no
    // encoding.
    std::string server_encoding;
};

// `mode`: sql or database_replication. Settings: ISO dates in UTC, postgres intervals, shortest
// exact floats, hex bytea, C money, an empty search_path (regclass and its like are qualified), no
// time-outs of statements or transactions, backslashes that are ordinary in strings, and an error
// where row security would hide rows. Errors: as Connection::connect; unsupported for a major this
// build does not know.
Task<Result<LogicalSession>> connect_to_database(DatabaseOptions options, Connection::Mode mode);

}  // namespace walvault::wal
