#include "agent/fetch_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "agent/render.h"

extern char** environ;

namespace walvault::agent {
namespace {

using SteadyClock = std::chrono::steady_clock;
// A child of the command may keep the pipe open after the command has ended.
constexpr int kPollMilliseconds = 50;
constexpr std::size_t kOutputBytesMax = 1024;

tl::unexpected<Error> bad_command(std::string message) {
    return fail(Errc::invalid_argument, std::move(message),
                "for example wal_fetch = \"cp /archive/%f %p\"");
}

// Takes one quoted stretch, its first quote taken already, off `rest`; false if it does not end.
bool take_quoted(char quote, std::string_view& rest, std::string& word) {
    while (!rest.empty()) {
        char next = rest.front();
        rest.remove_prefix(1);
        if (next == quote) return true;
        if (quote == '"' && next == '\\' && !rest.empty()) {
            next = rest.front();
            rest.remove_prefix(1);
        }
        word += next;
    }
    return false;
}

Result<std::vector<std::string>> split(std::string_view rest) {
    std::vector<std::string> words;
    bool in_word = false;
    while (!rest.empty()) {
        const char next = rest.front();
        rest.remove_prefix(1);
        if (next == ' ' || next == '\t') {
            in_word = false;
            continue;
        }
        if (!in_word) words.emplace_back();
        in_word = true;
        if (next == '\'' || next == '"') {
            if (!take_quoted(next, rest, words.back()))
                return bad_command("the command has a quote that does not end");
        } else if (next == '\\' && !rest.empty()) {
            words.back() += rest.front();
            rest.remove_prefix(1);
        } else {
            words.back() += next;
        }
    }
    return words;
}

struct Pipe {
    ~Pipe() {
        close_end(0);
        close_end(1);
    }
    void close_end(int end) {
        if (ends[end] >= 0) ::close(ends[end]);
        ends[end] = -1;
    }
    int ends[2] = {-1, -1};
};

// Not fork(): other threads of the agent may hold locks that the child would wait for.
Result<pid_t> spawn(const std::vector<std::string>& arguments, int output) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments)
        pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&files, output, 1);
    ::posix_spawn_file_actions_adddup2(&files, output, 2);
    // Listening sockets and locks of the agent are not the command's.
    ::posix_spawn_file_actions_addclosefrom_np(&files, 3);
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t child = -1;
    const int code =
        ::posix_spawnp(&child, pointers[0], &files, &attributes, pointers.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&files);
    if (code == 0) return child;
    return fail(Errc::unavailable,
                fmt::format("{} cannot be run: {}", printable(arguments[0]), std::strerror(code)));
}

enum class Heard { some, none_now, ended };

// Waits a moment for output and keeps its end.
Heard read_some(int output, int wait_milliseconds, std::string& text) {
    pollfd wait{output, POLLIN, 0};
    if (::poll(&wait, 1, wait_milliseconds) <= 0) return Heard::none_now;
    char buffer[4096];
    const ssize_t count = ::read(output, buffer, sizeof buffer);
    if (count < 0) return errno == EINTR || errno == EAGAIN ? Heard::none_now : Heard::ended;
    if (count == 0) return Heard::ended;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > kOutputBytesMax) text.erase(0, text.size() - kOutputBytesMax);
    return Heard::some;
}

// The status it ended with; nothing while it runs.
std::optional<int> ended_with(pid_t child, int options) {
    int status = 0;
    pid_t found = 0;
    do {
        found = ::waitpid(child, &status, options);
    } while (found < 0 && errno == EINTR);
    return found == child ? std::optional<int>(status) : std::nullopt;
}

Result<> judge(int status, const std::string& program, std::string output) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    std::replace(output.begin(), output.end(), '\n', ' ');
    while (output.ends_with(' '))
        output.pop_back();
    const std::string said = output.empty() ? "" : ": " + printable(output);
    if (WIFSIGNALED(status))
        return fail(Errc::unavailable, fmt::format("{} was ended by signal {}{}",
                                                   printable(program), WTERMSIG(status), said));
    const int code = WEXITSTATUS(status);
    if (code == 1)
        return fail(Errc::not_found,
                    fmt::format("{} ended with 1, which says that it is not there{}",
                                printable(program), said));
    return fail(Errc::unavailable,
                fmt::format("{} ended with {}{}", printable(program), code, said));
}

}  // namespace

Result<std::vector<std::string>> parse_fetch_command(std::string_view text) {
    WV_TRY(std::vector<std::string> words, split(text));
    if (words.empty() || words.front().empty()) return bad_command("the command is empty");
    bool has_file = false;
    bool has_path = false;
    for (const std::string& word : words)
        for (std::size_t at = word.find('%'); at != std::string::npos;
             at = word.find('%', at + 2)) {
            const char what = at + 1 < word.size() ? word[at + 1] : '\0';
            has_file = has_file || what == 'f';
            has_path = has_path || what == 'p';
            if (what != 'f' && what != 'p' && what != '%')
                return bad_command(
                    "in the command, % stands before something that is not f, p or %");
        }
    if (!has_file || !has_path)
        return bad_command(
            "the command needs %f, the segment's name, and %p, the file it is to become");
    return words;
}

std::vector<std::string> fetch_arguments(const std::vector<std::string>& words,
                                         const std::string& file, const std::string& path) {
    std::vector<std::string> arguments;
    for (const std::string& word : words) {
        std::string& argument = arguments.emplace_back();
        for (std::size_t at = 0; at < word.size(); ++at) {
            if (word[at] != '%' || at + 1 == word.size()) {
                argument += word[at];
                continue;
            }
            const char what = word[++at];
            argument += what == 'f' ? file : what == 'p' ? path : std::string(1, what);
        }
    }
    return arguments;
}

Result<> run_fetch(const std::vector<std::string>& arguments, std::chrono::milliseconds timeout,
                   const std::atomic<bool>& cancelled) {
    Pipe pipe;
    if (::pipe2(pipe.ends, O_CLOEXEC) != 0)
        return fail(Errc::unavailable, std::string("pipe: ") + std::strerror(errno));
    const SteadyClock::time_point deadline = SteadyClock::now() + timeout;
    WV_TRY(const pid_t child, spawn(arguments, pipe.ends[1]));
    pipe.close_end(1);
    std::string output;
    for (bool more = true;;) {
        if (more)
            more = read_some(pipe.ends[0], kPollMilliseconds, output) != Heard::ended;
        else
            (void)::poll(nullptr, 0, kPollMilliseconds);
        if (const auto status = ended_with(child, WNOHANG)) {
            while (more)
                more = read_some(pipe.ends[0], 0, output) == Heard::some;
            return judge(*status, arguments[0], std::move(output));
        }
        const bool late = SteadyClock::now() >= deadline;
        if (!late && !cancelled) continue;
        ::kill(-child, SIGKILL);
        (void)ended_with(child, 0);
        if (cancelled) return fail(Errc::cancelled, "fetching was stopped");
        return fail(Errc::unavailable,
                    fmt::format("{} did not end within {}", printable(arguments[0]),
                                format_duration(timeout)));
    }
}

}  // namespace walvault::agent
