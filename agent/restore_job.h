// RestoreJob: carries out a RestorePlan: files, WAL, settings, and pg_control last.
#pragma once

#include "agent/progress_line.h"
#include "agent/restore_plan.h"
#include "agent/restore_tree.h"

namespace walvault::agent {

struct RestoreOptions {
    unsigned jobs = 0;  // 0: processors
    std::string action = "pause";
    unsigned port = 0;  // 0: the server is not started
    std::string socket_directory;
    std::string restore_command;  // used when WAL is not in place
    std::optional<FileOwner> owner;
};

struct RestoreOutcome {
    std::uint64_t restored_bytes = 0;
    std::chrono::microseconds copy_time{};
};

// Until it ends well the directory holds the marker and no global/pg_control, so PostgreSQL cannot
// start it; repeating the command starts over. When it returns, everything is on disk. Errors:
// refused, busy, no_space, io, corrupt, gap.
Result<RestoreOutcome> run_restore(storage::RepositoryView& view, const RestorePlan& plan,
                                   const RestoreOptions& options, ProgressLine& progress);

}  // namespace walvault::agent
