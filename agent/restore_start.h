// Starts a restored server, waits until it has replayed up to its target, and checks that it did.
#pragma once

#include "agent/progress_line.h"
#include "agent/restore_plan.h"
#include "agent/server_process.h"

namespace walvault::agent {

struct StartRequest {
    std::string bin_directory;
    std::string action = "pause";  // pause | promote | shutdown
    unsigned port = 0;
    std::string socket_directory;
    std::optional<FileOwner> owner;
};

struct StartedServer {
    bool confirmed = false;  // it said that it replayed the planned record and stopped there
    bool running = false;
    bool paused = false;
    Lsn replayed_lsn;
    pid_t pid = 0;
    std::string detail;  // what was seen, or why it could not be confirmed, with the end of its log
    std::chrono::microseconds replay_time{};
};

// There is no limit on the time replay takes; it ends when the server does. Errors: io if the
// server cannot be started at all.
Result<StartedServer> start_and_confirm(const RestorePlan& plan, const StartRequest& request,
                                        ProgressLine& progress);

// Whether replay up to `replayed` (the end of the last record) has reached the plan. Pure.
bool has_reached(const StopPoint& stop, Lsn replayed);

}  // namespace walvault::agent
