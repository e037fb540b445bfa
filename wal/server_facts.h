// What an ordinary SQL connection tells about the server: settings, slots, configuration files.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "proto/lsn.h"
#include "wal/connection.h"

namespace walvault::wal {

struct SlotFacts {
    bool exists = false;
    bool active = false;
    int active_pid = 0;
    std::optional<Lsn> restart_lsn;
    std::string wal_status;  // reserved, extended, unreserved, lost; empty when nothing is reserved
    std::optional<std::int64_t> safe_wal_bytes;
    std::uint64_t retained_bytes = 0;  // current WAL position minus restart_lsn
    // Of the receiver that uses the slot: async, potential, sync, quorum; empty where none does or
    // the role may not see it.
    std::string sync_state;
    std::string synchronous_commit;  // the server's default

    bool is_waited_for() const { return sync_state == "sync" || sync_state == "quorum"; }
};
Task<Result<SlotFacts>> slot_facts(Connection& sql, std::string slot);

// Drops the slot if it is there. Errors: busy while somebody uses it.
Task<Result<>> drop_slot_by_sql(Connection& sql, std::string slot);
// The same for a logical slot of the connection's own database alone. Errors besides: refused where
// the slot is physical or of another database; it stays.
Task<Result<>> drop_logical_slot_by_sql(Connection& sql, std::string slot);

struct ConfigurationFacts {
    std::map<std::string, std::string>
        settings;  // pg_settings whose source is a file or the command line
    std::string data_directory;
    std::string config_file;
    std::string hba_file;
    std::string ident_file;
    std::string hba;  // content where the role may read it, else empty
    std::string ident;
    std::string server_encoding;
    WallTime server_at{};  // the server's clock while it answered
    bool data_checksums = false;
    bool configuration_outside = false;  // config_file is not in data_directory
};
Task<Result<ConfigurationFacts>> configuration_facts(Connection& sql);

// Errors: refused if the role may not execute pg_create_restore_point (the hint names the GRANT).
Task<Result<Lsn>> create_restore_point(Connection& sql, std::string name);

// "public.orders" for the relation files of the connection's own database that can be resolved now.
Task<Result<std::map<std::string, std::string>>> relation_names(Connection& sql,
                                                                std::vector<std::string> files);

}  // namespace walvault::wal
