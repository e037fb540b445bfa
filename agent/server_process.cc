#include "agent/server_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "agent/operating_user.h"
#include "base/asio.h"
#include "wal/connection.h"

namespace walvault::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kOutputBytesMax = 1 << 20;
// sockaddr_un holds 107 bytes; the name of the socket takes up to 16 of them.
constexpr std::size_t kSocketDirectoryBytesMax = 90;

// In the child, between fork and exec: only calls that are safe there.
void become(const std::optional<FileOwner>& owner) {
    if (!owner) return;
    const gid_t group = owner->group;
    if (::setgroups(1, &group) != 0 || ::setgid(owner->group) != 0 || ::setuid(owner->user) != 0)
        ::_exit(126);
}

std::vector<char*> argument_pointers(const std::vector<std::string>& arguments) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments)
        pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    return pointers;
}

bool is_executable(const std::string& path) { return ::access(path.c_str(), X_OK) == 0; }

// "postgres (PostgreSQL) 15.20 (Debian 15.20-…)" -> 15
unsigned major_of(const std::string& version_text) {
    const std::size_t at = version_text.find(") ");
    if (at == std::string::npos) return 0;
    return static_cast<unsigned>(std::strtoul(version_text.c_str() + at + 2, nullptr, 10));
}

std::vector<std::string> places_to_look(unsigned major) {
    const std::string number = std::to_string(major);
    std::vector<std::string> places{"/usr/lib/postgresql/" + number + "/bin",
                                    "/usr/pgsql-" + number + "/bin"};
    if (auto configured = run_program({"pg_config", "--bindir"}, std::nullopt); configured) {
        while (!configured->empty() && configured->back() == '\n')
            configured->pop_back();
        places.push_back(*configured);
    }
    const char* path = std::getenv("PATH");
    std::string rest = path == nullptr ? "" : path;
    while (!rest.empty()) {
        const std::size_t colon = rest.find(':');
        if (colon != 0) places.push_back(rest.substr(0, colon));
        rest.erase(0, colon == std::string::npos ? colon : colon + 1);
    }
    return places;
}

bool may_write(const std::string& directory, const std::optional<FileOwner>& owner) {
    struct stat status {};
    if (::stat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return false;
    if (!owner) return ::access(directory.c_str(), W_OK | X_OK) == 0;
    if (status.st_uid == owner->user) return (status.st_mode & 0300) == 0300;
    if (status.st_gid == owner->group) return (status.st_mode & 0030) == 0030;
    return (status.st_mode & 0003) == 0003;
}

// Reads both pipes until they end; what is above the limit is read and dropped.
void read_outputs(int out, int err, std::string& output, std::string& errors) {
    pollfd waits[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    std::string* goals[2] = {&output, &errors};
    char buffer[4096];
    for (int open = 2; open > 0;) {
        if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
        for (int i = 0; i < 2; ++i) {
            if (waits[i].fd < 0 || waits[i].revents == 0) continue;
            const ssize_t count = ::read(waits[i].fd, buffer, sizeof buffer);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) {
                waits[i].fd = -1;
                --open;
            } else if (goals[i]->size() < kOutputBytesMax) {
                goals[i]->append(buffer, static_cast<std::size_t>(count));
            }
        }
    }
}

}  // namespace

Result<std::string> run_program(const std::vector<std::string>& arguments,
                                const std::optional<FileOwner>& owner) {
    int out[2];
    int err[2];
    if (::pipe2(out, O_CLOEXEC) != 0)
        return fail(Errc::io, std::string("pipe: ") + std::strerror(errno));
    if (::pipe2(err, O_CLOEXEC) != 0) {
        const int code = errno;
        ::close(out[0]);
        ::close(out[1]);
        return fail(Errc::io, std::string("pipe: ") + std::strerror(code));
    }
    const std::vector<char*> pointers = argument_pointers(arguments);
    const pid_t child = ::fork();
    if (child == 0) {
        become(owner);
        ::dup2(out[1], 1);
        ::dup2(err[1], 2);
        ::execvp(pointers[0], pointers.data());
        ::_exit(127);
    }
    ::close(out[1]);
    ::close(err[1]);
    std::string output;
    std::string errors;
    int status = 0;
    if (child > 0) {
        read_outputs(out[0], err[0], output, errors);
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    ::close(out[0]);
    ::close(err[0]);
    if (child < 0) return fail(Errc::io, "start " + arguments[0] + ": no process could be made");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return output;
    return fail(Errc::io, arguments[0] + " failed: " + errors.substr(0, 1000));
}

Result<std::string> find_postgres(unsigned major, const std::string& given) {
    std::string looked;
    for (const std::string& place :
         given.empty() ? places_to_look(major) : std::vector<std::string>{given}) {
        const std::string program = place + "/postgres";
        looked += (looked.empty() ? "" : ", ") + place;
        if (!is_executable(program)) continue;
        auto version = run_program({program, "-V"}, std::nullopt);
        const unsigned found = version ? major_of(*version) : 0;
        if (found == major) return place;
        if (!given.empty())
            return fail(
                Errc::unsupported,
                program + " is of PostgreSQL " + std::to_string(found) + ", the base needs " +
                    std::to_string(major),
                "name the directory of PostgreSQL " + std::to_string(major) + " with --pg-bin");
    }
    return fail(
        Errc::not_found, "PostgreSQL " + std::to_string(major) + " was not found in " + looked,
        "install postgresql-" + std::to_string(major) + " or name its directory with --pg-bin");
}

Result<std::optional<FileOwner>> server_owner(const std::string& directory) {
    if (::geteuid() != 0) return std::nullopt;
    struct stat status {};
    fs::path place(directory);
    while (::stat(place.c_str(), &status) != 0 && place.has_relative_path())
        place = place.parent_path();
    if (status.st_uid != 0) {
        WV_TRY(FileOwner owner, user_numbered(status.st_uid));
        return owner;
    }
    if (auto owner = service_owner()) return owner;
    return fail(Errc::not_found,
                std::string("there is no user ") + kServiceUser + " on this system",
                "PostgreSQL does not run as root; create that user or run walvault as another one");
}

Result<unsigned> free_port(unsigned first, const std::string& socket_directory) {
    for (unsigned port = first; port < first + 200 && port < 65536; ++port) {
        const std::string socket_path = socket_directory + "/.s.PGSQL." + std::to_string(port);
        if (::access(socket_path.c_str(), F_OK) == 0) continue;
        const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<std::uint16_t>(port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const bool free =
            ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        ::close(descriptor);
        if (free) return port;
    }
    return fail(Errc::busy, "no port from " + std::to_string(first) + " on is free",
                "name one: --start=PORT");
}

std::string choose_socket_directory(const std::string& configured, const std::string& pgdata,
                                    const std::optional<FileOwner>& owner) {
    const std::string first = configured.substr(0, configured.find(','));
    for (const std::string& place : {first, std::string("/run/postgresql")})
        if (place.size() > 1 && place.front() == '/' && place.size() <= kSocketDirectoryBytesMax &&
            may_write(place, owner))
            return place;
    return pgdata.size() <= kSocketDirectoryBytesMax ? pgdata : "/tmp";
}

Result<ServerProcess> ServerProcess::start(const Options& options) {
    std::vector<std::string> arguments{
        options.bin_directory + "/postgres", "-D", options.pgdata,          "-p",
        std::to_string(options.port),        "-k", options.socket_directory};
    for (const std::string& setting : options.settings) {
        arguments.emplace_back("-c");
        arguments.push_back(setting);
    }
    const std::vector<char*> pointers = argument_pointers(arguments);
    const int log = ::open(options.log_path.c_str(),
                           O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0) return fail(Errc::io, "open " + options.log_path + ": " + std::strerror(errno));
    if (options.owner && ::fchown(log, options.owner->user, options.owner->group) != 0) {
        ::close(log);
        return fail(Errc::io,
                    "change the owner of " + options.log_path + ": " + std::strerror(errno));
    }
    const pid_t child = ::fork();
    if (child == 0) {
        ::setsid();
        become(options.owner);
        const int nothing = ::open("/dev/null", O_RDONLY);
        ::dup2(nothing, 0);
        ::dup2(log, 1);
        ::dup2(log, 2);
        if (::chdir(options.pgdata.c_str()) != 0) ::_exit(126);
        ::execv(pointers[0], pointers.data());
        ::_exit(127);
    }
    ::close(log);
    if (child < 0) return fail(Errc::io, std::string("start postgres: ") + std::strerror(errno));
    ServerProcess server;
    server.pid_ = child;
    server.log_path_ = options.log_path;
    return server;
}

bool ServerProcess::is_running() {
    if (ended_ || pid_ <= 0) return false;
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    ended_ = ended == pid_ || (ended < 0 && errno == ECHILD);
    return !ended_;
}

Result<> ServerProcess::stop(std::chrono::seconds patience) {
    if (!is_running()) return {};
    ::kill(pid_, SIGINT);
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (is_running()) {
        if (std::chrono::steady_clock::now() > deadline)
            return fail(Errc::unavailable, "the server (pid " + std::to_string(pid_) +
                                               ") did not stop within " +
                                               std::to_string(patience.count()) + " s");
        ::poll(nullptr, 0, 20);
    }
    return {};
}

std::string ServerProcess::log_tail(std::size_t lines) const {
    std::ifstream log(log_path_, std::ios::binary);
    log.seekg(0, std::ios::end);
    const std::streamoff size = log.tellg();
    log.seekg(std::max<std::streamoff>(0, size - 16384));
    std::string text((std::istreambuf_iterator<char>(log)), {});
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    std::size_t at = text.size();
    for (std::size_t i = 0; i < lines && at != std::string::npos; ++i)
        at = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
    return at == std::string::npos ? text : text.substr(at + 1);
}

namespace {

Task<Result<ReplayState>> ask(std::string conninfo) {
    wal::Connection::Options options;
    options.conninfo = std::move(conninfo);
    options.application_name = "walvault restore";
    options.connect_timeout = std::chrono::seconds(5);
    auto connected = co_await wal::Connection::connect(std::move(options));
    if (!connected) co_return fail(connected.error());
    std::string sql =
        "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN "
        "pg_get_wal_replay_pause_state() "
        "ELSE '' END, coalesce(pg_last_wal_replay_lsn(), '0/0')";
    auto answer = co_await (*connected)->query_one(std::move(sql));
    (*connected)->close();
    if (!answer) co_return fail(answer.error());
    if (answer->rows.size() != 1 || answer->rows[0].size() != 3)
        co_return fail(Errc::corrupt, "the restored server gave no answer about its replay");
    ReplayState state;
    state.in_recovery = answer->rows[0][0].value_or("") == "t";
    state.paused = answer->rows[0][1].value_or("") == "paused";
    auto lsn = parse_lsn(answer->rows[0][2].value_or(""));
    if (!lsn) co_return fail(lsn.error());
    state.replayed_lsn = *lsn;
    co_return state;
}

std::string quote_conninfo(const std::string& value) {
    std::string out = "'";
    for (char c : value) {
        if (c == '\'' || c == '\\') out += '\\';
        out += c;
    }
    return out + "'";
}

}  // namespace

Result<ReplayState> ask_replay_state(const std::string& socket_directory, unsigned port,
                                     const std::optional<FileOwner>& owner) {
    EffectiveUser as_owner(owner);
    const passwd* self = ::getpwuid(::geteuid());
    const std::string user = owner ? owner->name : self != nullptr ? self->pw_name : "postgres";
    const std::string conninfo = "host=" + quote_conninfo(socket_directory) +
                                 " port=" + std::to_string(port) +
                                 " dbname=postgres user=" + quote_conninfo(user);
    asio::io_context loop;
    Result<ReplayState> state = fail(Errc::unavailable, "the restored server was not asked");
    asio::co_spawn(loop, ask(conninfo),
                   [&](std::exception_ptr broken, Result<ReplayState> answered) {
                       WV_ASSERT(!broken);
                       state = std::move(answered);
                   });
    loop.run();
    return state;
}

}  // namespace walvault::agent
