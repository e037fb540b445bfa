// Children of the demo: started as the unprivileged user, waited for with a deadline, ended by
// their id.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"

namespace walvault::agent {

// Who the children run as.
struct DemoAccount {
    uid_t user = 0;
    gid_t group = 0;
    std::string name;
    bool change = false;  // this process is root and must become that user first
};

// This user, or when that is root: postgres, else nobody. Errors: not_found.
Result<DemoAccount> unprivileged_account();

// While one exists SIGINT, SIGTERM and SIGHUP end waits with "cancelled" instead of ending the
// process, so that its children and files can be removed.
class InterruptGuard {
public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;
    // 0, or the signal that came.
    static int caught();
};

struct DemoCommand {
    std::vector<std::string> arguments;  // the first is an absolute path
    std::vector<std::string> environment;
    std::string directory;
    bool outlive = false;  // it stays when this process ends
};

// One process. Destroying it does not end it.
class DemoChild {
public:
    DemoChild() = default;
    // Output is appended to `log_path`. Errors: unavailable.
    static Result<DemoChild> start(const DemoAccount& account, const DemoCommand& command,
                                   const std::string& log_path);

    pid_t id() const { return pid_; }
    bool is_running();
    // The exit code, or 128 + the signal. Errors: unavailable after `timeout`; cancelled.
    Result<int> wait(std::chrono::milliseconds timeout);
    void send(int signal);
    // `signal`, then SIGKILL if that did not end it within `patience`. Not interruptible.
    void end(int signal, std::chrono::milliseconds patience);

private:
    pid_t pid_ = -1;
    int exit_code_ = -1;
};

struct DemoOutput {
    int exit_code = 0;
    std::string out;
    std::string err;
};

// Runs `command` to its end with its output captured. Errors: unavailable after `timeout`;
// cancelled.
Result<DemoOutput> run_demo_command(const DemoAccount& account, const DemoCommand& command,
                                    std::chrono::milliseconds timeout);

// Polls `condition` every 20 ms; it says true, false or an error. Errors: unavailable naming `what`
// after `timeout`; cancelled; the condition's.
template <class Condition>
Result<> wait_for_condition(const std::string& what, std::chrono::milliseconds timeout,
                            Condition condition);

// One step of such a wait: sleeps, then tells whether to go on.
Result<> pause_for_condition(const std::string& what,
                             std::chrono::steady_clock::time_point deadline);

template <class Condition>
Result<> wait_for_condition(const std::string& what, std::chrono::milliseconds timeout,
                            Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        WV_TRY(const bool met, condition());
        if (met) return {};
        WV_CHECK(pause_for_condition(what, deadline));
    }
}

}  // namespace walvault::agent
