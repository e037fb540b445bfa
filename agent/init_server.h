// The server's side of walvault init: what is asked of it and the role that is made there.
#pragma once

#include <string>

#include "base/result.h"

namespace walvault::agent {

// The statements that make the role, as deploy/postgres-role.sql has them.
std::string role_sql();

struct ServerSetup {
    std::string version;          // "15.20"
    std::string wal_level;        // minimal | replica | logical
    std::string slot_size_limit;  // max_slot_wal_keep_size
    std::string connected_as;
    bool role_was_ready = false;  // all of it was there before
    bool role_is_ready = false;   // and is there now
    std::string role_problem;     // why it is not
};

// Connects with `conninfo`; makes the role and its grants where they are missing, unless `dry_run`.
// A role that may not be made is told in the answer. Blocks. Errors: unsupported for a major that
// this build does not know, before anything is asked of it; else as Connection::connect.
Result<ServerSetup> set_up_server(const std::string& conninfo, bool dry_run);

// `conninfo` for the role walvault and the database postgres, without what only this one needed.
// Errors: invalid_argument.
Result<std::string> agent_conninfo(const std::string& conninfo);

}  // namespace walvault::agent
