// walvault run: the agent, in the foreground.
#include <unistd.h>

#include <csignal>

#include "agent/agent.h"
#include "base/log.h"

namespace walvault::agent {

int verb_run(const Globals& globals, const RunArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    log::Format format = ::isatty(STDERR_FILENO) != 0 ? log::Format::text : log::Format::json;
    log::Level level = config->log_level;
    if (!globals.log_level.empty() && !log::parse_level(globals.log_level, level))
        return report(globals,
                      Error{Errc::invalid_argument, "no log level \"" + globals.log_level + "\"",
                            "trace, debug, info, warn or error"},
                      kExitUsage);
    log::configure(level, config->log_format.value_or(format));
    AgentRequest request;
    if (arguments.once) request.mode = AgentMode::catch_up;
    auto ran = run_agent(globals, request);
    if (!ran) return report(globals, ran.error());
    // SIGTERM is how a service ends: all that was received is flushed.
    if (!arguments.once) return *ran == SIGINT ? kExitInterrupted : kExitDone;
    return *ran == 0 ? static_cast<int>(kExitDone) : report_signal(globals, *ran);
}

}  // namespace walvault::agent
