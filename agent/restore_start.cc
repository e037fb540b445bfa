#include "agent/restore_start.h"

#include <poll.h>

#include <algorithm>

#include "agent/render.h"

namespace walvault::agent {
namespace {

constexpr int kPollMillis = 50;
constexpr int kRefusalsMax = 40;
constexpr std::size_t kLogLines = 12;
constexpr std::chrono::seconds kStopPatience{300};

ServerProcess::Options server_options(const RestorePlan& plan, const StartRequest& request) {
    ServerProcess::Options options;
    options.bin_directory = request.bin_directory;
    options.pgdata = plan.directory.path;
    options.port = request.port;
    options.socket_directory = request.socket_directory;
    options.log_path = plan.directory.path + "/walvault-start.log";
    options.owner = request.owner;
    // Whatever the restored files say, these hold for this start.
    options.settings = {"data_directory=" + plan.directory.path, "archive_mode=off",
                        "logging_collector=off", "log_destination=stderr",
                        "max_logical_replication_workers=0"};
    // A server that shuts itself down cannot be asked; it is stopped after it was.
    if (request.action == "shutdown") options.settings.push_back("recovery_target_action=pause");
    return options;
}

class StartAndConfirm {
public:
    StartAndConfirm(const RestorePlan& plan, const StartRequest& request, ProgressLine& progress)
        : plan_(plan), request_(request), progress_(progress) {}

    Result<StartedServer> run() {
        const SteadyTime began = std::chrono::steady_clock::now();
        WV_TRY(server_, ServerProcess::start(server_options(plan_, request_)));
        const Lsn from{plan_.stop.base.start_lsn()};
        progress_.begin("replay", plan_.stop.wal_to_lsn - std::min(from, plan_.stop.wal_to_lsn));
        StartedServer started = wait_for_target(from);
        started.pid = server_.pid();
        if (started.confirmed)
            progress_.finish();
        else
            progress_.abandon();
        if (started.confirmed && request_.action == "shutdown") {
            WV_CHECK(server_.stop(kStopPatience));
            started.running = started.paused = false;
        }
        const auto took = std::chrono::steady_clock::now() - began;
        started.replay_time = std::chrono::duration_cast<std::chrono::microseconds>(took);
        return started;
    }

private:
    StartedServer wait_for_target(Lsn from) {
        int refusals = 0;
        while (server_.is_running()) {
            auto state = ask_replay_state(request_.socket_directory, request_.port, request_.owner);
            if (!state && state.error().code != Errc::unavailable && ++refusals > kRefusalsMax)
                return unconfirmed("the server lets nobody ask it: " + state.error().message, true);
            if (state) {
                progress_.update(std::max(state->replayed_lsn, from) - from);
                const bool at_end = state->paused || !state->in_recovery;
                if (at_end && has_reached(plan_.stop, state->replayed_lsn))
                    return confirmed(*state);
                if (at_end)
                    return unconfirmed(
                        "it stopped after " + to_string(state->replayed_lsn) +
                            ", before the planned " +
                            to_string(plan_.stop.recovery_lsn.value_or(plan_.stop.wal_to_lsn)),
                        true);
            }
            ::poll(nullptr, 0, kPollMillis);
        }
        return unconfirmed("the server ended before it reached the target; its log ends with\n" +
                               server_.log_tail(kLogLines),
                           false);
    }

    StartedServer confirmed(const ReplayState& state) const {
        StartedServer started;
        started.confirmed = started.running = true;
        started.paused = state.paused;
        started.replayed_lsn = state.replayed_lsn;
        started.detail = "stopped after " + to_string(state.replayed_lsn);
        if (plan_.stop.last_kept)
            started.detail += ", last commit xid " + std::to_string(plan_.stop.last_kept->xid);
        started.detail += ", as planned";
        return started;
    }

    static StartedServer unconfirmed(std::string why, bool running) {
        StartedServer started;
        started.running = running;
        started.detail = std::move(why);
        return started;
    }

    const RestorePlan& plan_;
    const StartRequest& request_;
    ProgressLine& progress_;
    ServerProcess server_;
};

}  // namespace

bool has_reached(const StopPoint& stop, Lsn replayed) {
    if (stop.recovery_lsn) return replayed > *stop.recovery_lsn;
    return replayed >= Lsn{stop.base.stop_lsn()};
}

Result<StartedServer> start_and_confirm(const RestorePlan& plan, const StartRequest& request,
                                        ProgressLine& progress) {
    return StartAndConfirm(plan, request, progress).run();
}

}  // namespace walvault::agent
