// The server's side of walvault init: what is asked of it and the role that is made there.
#pragma once

#include <optional>
#include <string>

#include "agent/restore_tree.h"
#include "base/result.h"

namespace walvault::agent {

// The statements that make the role, as deploy/postgres-role.sql has them.
std::string role_sql();

struct ServerRequest {
    std::string conninfo;    // of someone who may create roles
    std::string agent_role;  // of an existing configuration; empty: to be chosen
    bool dry_run = false;
    std::optional<FileOwner> owner;  // who runs the agent, when that is not this process' user
};

struct ServerSetup {
    std::string version;          // "15.20"
    std::string wal_level;        // minimal | replica | logical
    std::string slot_size_limit;  // max_slot_wal_keep_size
    std::string connected_as;
    // Whom the agent connects as: walvault, unless pg_hba.conf admits it only as `connected_as`, as
    // Debian's peer lines do with the user postgres. Then no role is made.
    std::string agent_role;
    bool role_was_ready = false;  // all of it was there before
    bool role_is_ready = false;   // and is there now, and was let in if it was to be chosen
    std::string role_problem;     // why it is not
};

// Connects with `conninfo`; makes the role and its grants where they are missing, unless `dry_run`,
// and tries it. A role that may not be made or is not let in is told in the answer. Blocks. Errors:
// unsupported for a major that this build does not know, before anything is asked of it; else as
// Connection::connect.
Result<ServerSetup> set_up_server(const ServerRequest& request);

// `conninfo` for `role` and the database postgres, without what only this connection needed.
// Errors: invalid_argument.
Result<std::string> agent_conninfo(const std::string& conninfo, const std::string& role);

// The user a conninfo names; empty: none. Errors: invalid_argument.
Result<std::string> role_of_conninfo(const std::string& conninfo);

}  // namespace walvault::agent
