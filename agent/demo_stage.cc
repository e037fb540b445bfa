#include "agent/demo_stage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "agent/control.h"
#include "proto/server_version.h"

namespace walvault::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kStartPatience{30};
constexpr seconds kCommandPatience{60};

constexpr const char* kConfig = R"(config_version = 1

[server.main]
conninfo       = "host={0}/socket port={1} user={2} dbname=postgres"
flush_interval = "50ms"

[server.main.backup]
checkpoint = "fast"

[repo.primary]
url     = "file://{0}/repository"
reserve = "0%"

[encryption]
key = "file:{0}/repo.key"

[web]
listen = "unix:{0}/agent.sock"

[log]
format = "text"
)";

constexpr const char* kServerSettings = R"(
listen_addresses = ''
unix_socket_directories = '{0}/socket'
port = {1}
shared_buffers = '32MB'
log_line_prefix = '%m [%p] %a '
)";

std::string last_error() { return std::strerror(errno); }

bool is_program(const std::string& path) { return access(path.c_str(), X_OK) == 0; }

// "postgres (PostgreSQL) 15.20 (Debian …)" -> "15.20".
std::string version_in(const std::string& text) {
    const std::size_t start = text.find_first_of("0123456789");
    if (start == std::string::npos) return {};
    return text.substr(start, text.find_first_of(" \n", start) - start);
}

std::vector<std::string> places_of_postgres(const std::string& given) {
    if (!given.empty()) return {given};
    std::vector<std::string> places;
    const auto known = known_server_versions();
    for (auto version = known.rbegin(); version != known.rend(); ++version)
        places.push_back("/usr/lib/postgresql/" + std::to_string(version->major) + "/bin");
    std::string path = getenv("PATH") != nullptr ? getenv("PATH") : "";
    for (std::size_t from = 0; from <= path.size();) {
        const std::size_t to = std::min(path.find(':', from), path.size());
        if (to > from) places.push_back(path.substr(from, to - from));
        from = to + 1;
    }
    return places;
}

}  // namespace

std::string last_lines(const std::string& path, std::size_t count) {
    std::ifstream file(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
        lines.push_back(line);
    std::string text;
    for (std::size_t i = lines.size() > count ? lines.size() - count : 0; i < lines.size(); ++i)
        text += lines[i] + '\n';
    return text;
}

Result<std::unique_ptr<DemoStage>> DemoStage::make(const Globals& globals,
                                                   const DemoArguments& arguments) {
    std::unique_ptr<DemoStage> stage(new DemoStage(arguments.keep));
    WV_TRY(stage->account_, unprivileged_account());
    WV_CHECK(stage->make_directory(arguments.directory));
    WV_CHECK(stage->place_program(globals.program));
    WV_CHECK(stage->find_postgres(arguments.pg_bin));
    return stage;
}

DemoStage::~DemoStage() {
    if (keep_) return;
    end_restored_server();
    agent_.end(SIGTERM, seconds(10));
    postgres_.end(SIGQUIT, seconds(10));
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

Result<> DemoStage::make_directory(const std::string& parent) {
    const char* temporary = getenv("TMPDIR");
    std::string path = !parent.empty()                              ? parent
                       : temporary != nullptr && *temporary != '\0' ? temporary
                                                                    : "/tmp";
    std::error_code failure;
    path = std::filesystem::absolute(path, failure).lexically_normal().string() +
           "/walvault-demo-XXXXXX";
    if (mkdtemp(path.data()) == nullptr)
        return fail(Errc::refused,
                    fmt::format("cannot make a directory like {}: {}", path, last_error()),
                    "name a directory that can be written: --dir DIR");
    directory_ = std::filesystem::canonical(path, failure).string();
    const std::string sockets = shop().socket_directory;
    const bool made = mkdir(sockets.c_str(), 0700) == 0;
    const bool given =
        !account_.change || (chown(sockets.c_str(), account_.user, account_.group) == 0 &&
                             chown(directory_.c_str(), account_.user, account_.group) == 0);
    if (!made || !given)
        return fail(Errc::refused, fmt::format("cannot prepare {}: {}", directory_, last_error()));
    return {};
}

// The unprivileged user may not reach a build under /root, and restore_command needs a path it can
// run.
Result<> DemoStage::place_program(const std::string& own_path) {
    program_ = own_path;
    if (!account_.change) return {};
    auto reached =
        run_demo_command(account_, command({"/usr/bin/test", "-x", own_path}), kCommandPatience);
    if (!reached) return fail(reached.error());
    if (reached->exit_code == 0) return {};
    program_ = directory_ + "/walvault";
    std::error_code failure;
    std::filesystem::copy_file(own_path, program_, failure);
    if (failure || chmod(program_.c_str(), 0755) != 0)
        return fail(Errc::refused,
                    fmt::format("cannot copy {} to where {} can run it", own_path, account_.name));
    return {};
}

Result<> DemoStage::find_postgres(const std::string& given) {
    for (const std::string& place : places_of_postgres(given)) {
        if (!is_program(place + "/postgres") || !is_program(place + "/initdb")) continue;
        pg_bin_ = place;
        WV_TRY(const std::string version,
               run({place + "/postgres", "--version"}, kCommandPatience));
        server_version_ = version_in(version);
        const auto major =
            static_cast<unsigned>(std::strtoul(server_version_.c_str(), nullptr, 10));
        WV_CHECK(find_server_version(major, place));
        return {};
    }
    return fail(Errc::not_found,
                "found no PostgreSQL server programs" + (given.empty() ? "" : " in " + given),
                "apt-get install postgresql-15, or name their directory: --pg-bin DIR");
}

DemoCommand DemoStage::command(std::vector<std::string> arguments) const {
    DemoCommand made;
    made.arguments = std::move(arguments);
    made.directory = directory_;
    made.outlive = outlive_;
    made.environment = {"PATH=" + pg_bin_ + ":/usr/bin:/bin", "HOME=" + directory_,
                        "LC_ALL=C.UTF-8", "NO_COLOR=1"};
    for (const char* name : {"TZ", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"})
        if (const char* value = getenv(name))
            made.environment.push_back(std::string(name) + "=" + value);
    return made;
}

Result<std::string> DemoStage::run(std::vector<std::string> arguments, seconds timeout) {
    const std::string program = std::filesystem::path(arguments.front()).filename().string();
    WV_TRY(DemoOutput output, run_demo_command(account_, command(std::move(arguments)), timeout));
    if (output.exit_code == 0) return std::move(output.out);
    while (!output.err.empty() && output.err.back() == '\n')
        output.err.pop_back();
    return fail(Errc::unavailable,
                fmt::format("{} ended with exit code {}: {}", program, output.exit_code,
                            output.err.empty() ? "it said nothing" : output.err));
}

Result<> DemoStage::write_file(const std::string& name, const std::string& text,
                               unsigned mode) const {
    const std::string path = directory_ + "/" + name;
    const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode);
    if (descriptor < 0)
        return fail(Errc::unavailable, fmt::format("cannot write {}: {}", path, last_error()));
    const bool written =
        write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const bool given = !account_.change || fchown(descriptor, account_.user, account_.group) == 0;
    close(descriptor);
    if (written && given) return {};
    return fail(Errc::unavailable, fmt::format("cannot write {}", path));
}

Result<> DemoStage::start_postgres() {
    const std::string data = directory_ + "/data";
    WV_TRY(std::string ignored, run({pg_bin_ + "/initdb", "-k", "-N", "-A", "trust", "-U",
                                     account_.name, "-E", "UTF8", "--locale=C.UTF-8", "-D", data},
                                    kCommandPatience));
    WV_CHECK(write_file("data/postgresql.conf", fmt::format(kServerSettings, directory_, kPort)));
    WV_TRY(postgres_, DemoChild::start(account_, command({pg_bin_ + "/postgres", "-D", data}),
                                       directory_ + "/postgres.log"));
    return wait_for_condition(
        "PostgreSQL to accept connections", kStartPatience, [this]() -> Result<bool> {
            if (!postgres_.is_running())
                return fail(Errc::unavailable, "PostgreSQL ended while it started:\n" +
                                                   last_lines(directory_ + "/postgres.log", 10));
            auto answer = sql(shop(), "select 1");
            if (!answer && answer.error().code == Errc::cancelled) return fail(answer.error());
            return answer.has_value();
        });
}

Result<> DemoStage::set_up_agent() {
    WV_CHECK(write_file("walvault.toml", fmt::format(kConfig, directory_, kPort, account_.name)));
    const std::string conninfo = fmt::format("host={} port={} user={} dbname=postgres",
                                             shop().socket_directory, kPort, account_.name);
    WV_TRY(std::string ignored, walvault({"init", "--conninfo", conninfo}));
    return {};
}

Result<> DemoStage::start_agent() {
    WV_TRY(agent_, DemoChild::start(account_, command({program_, "--config", config_path(), "run"}),
                                    agent_log()));
    return wait_for_condition("the agent to be ready", kStartPatience, [this]() -> Result<bool> {
        if (!agent_.is_running())
            return fail(Errc::unavailable,
                        "the agent ended while it started:\n" + last_lines(agent_log(), 10));
        return ask_agent("/readyz").has_value();
    });
}

Result<> DemoStage::kill_agent() {
    agent_.send(SIGKILL);
    WV_TRY(const int code, agent_.wait(kStartPatience));
    if (code == 128 + SIGKILL) return {};
    return fail(Errc::unavailable,
                fmt::format("the agent had ended by itself with exit code {}:\n{}", code,
                            last_lines(agent_log(), 10)));
}

Result<std::string> DemoStage::ask_agent(const std::string& path) const {
    return call_agent(directory_ + "/agent.sock", "GET", path);
}

Result<std::string> DemoStage::sql(const DemoServer& server, const std::string& statement) {
    WV_TRY(std::string answer,
           run({pg_bin_ + "/psql", "-X", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h",
                server.socket_directory, "-p", std::to_string(server.port), "-U", account_.name,
                "-d", "postgres", "-c", statement},
               kCommandPatience));
    while (!answer.empty() && answer.back() == '\n')
        answer.pop_back();
    return answer;
}

Result<std::string> DemoStage::pg_program(const std::string& name,
                                          std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {pg_bin_ + "/" + name, "-h", shop().socket_directory, "-p",
                                         std::to_string(kPort), "-U", account_.name});
    arguments.push_back("postgres");
    return run(std::move(arguments), kCommandPatience);
}

Result<DemoChild> DemoStage::start_pg_program(const std::string& name,
                                              std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {pg_bin_ + "/" + name, "-h", shop().socket_directory, "-p",
                                         std::to_string(kPort), "-U", account_.name});
    arguments.push_back("postgres");
    return DemoChild::start(account_, command(std::move(arguments)),
                            directory_ + "/" + name + ".log");
}

Result<std::string> DemoStage::walvault(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {program_, "--config", config_path()});
    return run(std::move(arguments), kCommandPatience);
}

std::string DemoStage::process_ids() const {
    return std::to_string(agent_.id()) + " " + std::to_string(postgres_.id());
}

// It was started by `walvault restore --start` and is no child of this process: found by its pid
// file, and signalled only if the process of that id works in that directory.
void DemoStage::end_restored_server() {
    std::error_code failure;
    std::ifstream file(restored_directory() + "/postmaster.pid");
    std::string line;
    pid_t pid = 0;
    if (!std::getline(file, line)) return;
    std::from_chars(line.data(), line.data() + line.size(), pid);
    const std::string process = "/proc/" + std::to_string(pid);
    auto lives_here = [&] {
        return pid > 1 &&
               std::filesystem::read_symlink(process + "/cwd", failure) == restored_directory();
    };
    if (!lives_here()) return;
    kill(pid, SIGQUIT);
    for (int round = 0; round < 250 && lives_here(); ++round)
        usleep(20'000);
    if (lives_here()) kill(pid, SIGKILL);
}

}  // namespace walvault::agent
