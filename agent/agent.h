// Agent: everything of one server put together: repository, capture, base backups, slot watch,
// HTTP.
#pragma once

#include <memory>

#include "agent/config.h"
#include "agent/verbs.h"

namespace walvault::agent {

enum class AgentMode {
    serve,     // until SIGTERM
    catch_up,  // until everything the server had at the start is flushed
    backup,    // until one base backup is complete or failed
};

struct AgentRequest {
    AgentMode mode = AgentMode::serve;
    std::string backup_label = "walvault";
    bool fast_checkpoint = false;
};

// Runs in the foreground on the calling thread. SIGTERM and SIGINT drain and close; SIGHUP reads
// the configuration again. Returns the signal that ended it, zero when it was done by itself.
// Errors: busy (another agent), wrong_key, refused, forked, … as the parts give them; unavailable
// when a server is not reached at the first attempt and the mode is not `serve`.
Result<int> run_agent(const Globals& globals, const AgentRequest& request);

}  // namespace walvault::agent
