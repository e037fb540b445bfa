// One conversation with the server from a one-shot command: a loop, a connection, a coroutine.
#pragma once

#include <functional>
#include <optional>

#include "wal/connection.h"
#include "wal/logical_session.h"

namespace walvault::agent {

// Connects as `options` say and runs `talk` to its end. Blocking. Errors: those of connecting, or
// what `talk` returned.
Result<> call_server(const wal::Connection::Options& options,
                     std::function<Task<Result<>>(wal::Connection&)> talk);

// The same over a connection to one database with the settings of the row journal.
Result<> call_database(const wal::DatabaseOptions& options,
                       std::function<Task<Result<>>(wal::Connection&)> talk);

}  // namespace walvault::agent
