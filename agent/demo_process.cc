#include "agent/demo_process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "agent/render.h"

namespace walvault::agent {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPollInterval{20};

volatile std::sig_atomic_t caught_signal = 0;
std::array<struct sigaction, 3> previous_actions;
constexpr std::array<int, 3> kStopSignals{SIGINT, SIGTERM, SIGHUP};

void remember_signal(int signal) { caught_signal = signal; }

std::string system_text(int number) { return std::strerror(number); }

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (const std::string& text : texts)
        pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
}

// Between fork and exec: only calls that are safe there. Returns only when something failed.
void become(const DemoAccount& account, const DemoCommand& command, char* const* arguments,
            char* const* environment) {
    if (setsid() < 0) return;
    if (account.change && (setgroups(1, &account.group) != 0 || setgid(account.group) != 0 ||
                           setuid(account.user) != 0))
        return;
    if (!command.outlive && prctl(PR_SET_PDEATHSIG, SIGTERM) != 0) return;
    if (chdir(command.directory.c_str()) != 0) return;
    execve(arguments[0], arguments, environment);
}

// Starts the command with the given descriptors as its standard output and error.
Result<pid_t> spawn(const DemoAccount& account, const DemoCommand& command, int out, int err) {
    std::vector<char*> arguments = pointers_to(command.arguments);
    std::vector<char*> environment = pointers_to(command.environment);
    const pid_t pid = fork();
    if (pid < 0) return fail(Errc::unavailable, "cannot start a process: " + system_text(errno));
    if (pid > 0) return pid;
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0)
        become(account, command, arguments.data(), environment.data());
    static constexpr char kMessage[] = "walvault demo: cannot start this program\n";
    if (write(2, kMessage, sizeof kMessage - 1) < 0) _exit(126);
    _exit(127);
}

int exit_code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class Descriptor {
public:
    explicit Descriptor(int number = -1) : number_(number) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor& operator=(Descriptor&&) = delete;
    int get() const { return number_; }
    void reset() {
        if (number_ >= 0) close(number_);
        number_ = -1;
    }

private:
    int number_;
};

struct Pipe {
    Descriptor read_end;
    Descriptor write_end;
};

Result<Pipe> make_pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(Errc::unavailable, "cannot make a pipe: " + system_text(errno));
    return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// Takes what is there; closes the end that has no more to give.
void drain(Descriptor& end, short events, std::string& into) {
    if (end.get() < 0 || events == 0) return;
    std::array<char, 16384> buffer;
    const ssize_t count = read(end.get(), buffer.data(), buffer.size());
    if (count > 0)
        into.append(buffer.data(), static_cast<std::size_t>(count));
    else if (count == 0 || errno != EINTR)
        end.reset();
}

bool has_ended(pid_t pid) {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == pid;
}

// Reads both ends until the program closed them, or has ended and left them to a server it started.
Result<> collect(pid_t pid, Descriptor& out, Descriptor& err, DemoOutput& output,
                 const std::string& program, SteadyClock::time_point deadline) {
    while (out.get() >= 0 || err.get() >= 0) {
        std::array<pollfd, 2> waits{pollfd{out.get(), POLLIN, 0}, pollfd{err.get(), POLLIN, 0}};
        const bool ended = has_ended(pid);
        const int ready = poll(waits.data(), waits.size(), static_cast<int>(kPollInterval.count()));
        if (ended && ready == 0) return {};
        drain(out, waits[0].revents, output.out);
        drain(err, waits[1].revents, output.err);
        if (InterruptGuard::caught() != 0) return fail(Errc::cancelled, "interrupted");
        if (SteadyClock::now() > deadline)
            return fail(Errc::unavailable, program + " did not end in time");
    }
    return {};
}

}  // namespace

Result<DemoAccount> unprivileged_account() {
    if (geteuid() != 0) {
        const passwd* entry = getpwuid(geteuid());
        return DemoAccount{geteuid(), getegid(), entry != nullptr ? entry->pw_name : "", false};
    }
    for (const char* name : {"postgres", "nobody"}) {
        if (const passwd* entry = getpwnam(name))
            return DemoAccount{entry->pw_uid, entry->pw_gid, name, true};
    }
    return fail(Errc::not_found,
                "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
                "run the demo as an ordinary user");
}

InterruptGuard::InterruptGuard() {
    caught_signal = 0;
    struct sigaction action {};
    action.sa_handler = remember_signal;
    for (std::size_t i = 0; i < kStopSignals.size(); ++i)
        sigaction(kStopSignals[i], &action, &previous_actions[i]);
}

InterruptGuard::~InterruptGuard() {
    for (std::size_t i = 0; i < kStopSignals.size(); ++i)
        sigaction(kStopSignals[i], &previous_actions[i], nullptr);
}

int InterruptGuard::caught() { return caught_signal; }

Result<DemoChild> DemoChild::start(const DemoAccount& account, const DemoCommand& command,
                                   const std::string& log_path) {
    Descriptor log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (log.get() < 0)
        return fail(Errc::unavailable, "cannot write " + log_path + ": " + system_text(errno));
    DemoChild child;
    WV_TRY(child.pid_, spawn(account, command, log.get(), log.get()));
    return child;
}

bool DemoChild::is_running() {
    if (pid_ < 0) return false;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == 0) return true;
    exit_code_ = exit_code_of(status);
    pid_ = -1;
    return false;
}

Result<int> DemoChild::wait(std::chrono::milliseconds timeout) {
    WV_CHECK(wait_for_condition("a process to end", timeout,
                                [this]() -> Result<bool> { return !is_running(); }));
    return exit_code_;
}

void DemoChild::send(int signal) {
    if (is_running()) kill(pid_, signal);
}

void DemoChild::end(int signal, std::chrono::milliseconds patience) {
    send(signal);
    const auto deadline = SteadyClock::now() + patience;
    while (is_running() && SteadyClock::now() < deadline)
        poll(nullptr, 0, static_cast<int>(kPollInterval.count()));
    if (!is_running()) return;
    kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
}

Result<DemoOutput> run_demo_command(const DemoAccount& account, const DemoCommand& command,
                                    std::chrono::milliseconds timeout) {
    WV_TRY(Pipe out, make_pipe());
    WV_TRY(Pipe err, make_pipe());
    WV_TRY(const pid_t pid, spawn(account, command, out.write_end.get(), err.write_end.get()));
    out.write_end.reset();
    err.write_end.reset();
    DemoOutput output;
    const Result<> collected = collect(pid, out.read_end, err.read_end, output,
                                       command.arguments.front(), SteadyClock::now() + timeout);
    if (!collected) kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    WV_CHECK(collected);
    output.exit_code = exit_code_of(status);
    return output;
}

Result<> pause_for_condition(const std::string& what, SteadyClock::time_point deadline) {
    if (InterruptGuard::caught() != 0) return fail(Errc::cancelled, "interrupted");
    if (SteadyClock::now() > deadline)
        return fail(Errc::unavailable, "gave up waiting for " + what);
    poll(nullptr, 0, static_cast<int>(kPollInterval.count()));
    return {};
}

}  // namespace walvault::agent
