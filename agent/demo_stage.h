// DemoStage: the scratch directory of the demo with its PostgreSQL, its agent and the restored
// server.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/demo_process.h"
#include "agent/verbs.h"

namespace walvault::agent {

// Where a server listens.
struct DemoServer {
    std::string socket_directory;
    unsigned port = 0;
};

// Everything it made is ended and removed when it is destroyed, unless keep() was called.
class DemoStage {
public:
    static constexpr unsigned kPort = 5432;  // of the shop's server; unix sockets only

    // Makes the directory and finds PostgreSQL's programs. Errors: not_found, refused, unavailable.
    static Result<std::unique_ptr<DemoStage>> make(const Globals& globals,
                                                   const DemoArguments& arguments);
    ~DemoStage();
    DemoStage(const DemoStage&) = delete;
    DemoStage& operator=(const DemoStage&) = delete;

    const std::string& directory() const { return directory_; }
    const std::string& server_version() const { return server_version_; }
    const std::string& program() const { return program_; }
    // The role that owns everything: named as the user it runs as, whom peer authentication lets
    // in.
    const std::string& superuser() const { return account_.name; }
    DemoServer shop() const { return {directory_ + "/socket", kPort}; }
    std::string config_path() const { return directory_ + "/walvault.toml"; }
    std::string restored_directory() const { return directory_ + "/restored"; }
    std::string agent_log() const { return directory_ + "/agent.log"; }

    Result<> start_postgres();
    // The configuration, and by `walvault init` the key, the repository and the role.
    Result<> set_up_agent();
    Result<> start_agent();
    // SIGKILL, without a warning.
    Result<> kill_agent();
    // The agent's answer to GET `path`. Errors: unavailable.
    Result<std::string> ask_agent(const std::string& path) const;

    // The answer of one statement, tabs between columns. Errors: unavailable with psql's message.
    Result<std::string> sql(const DemoServer& server, const std::string& statement);
    // A PostgreSQL program with the arguments of the shop's connection put in. Errors: unavailable.
    Result<std::string> pg_program(const std::string& name, std::vector<std::string> arguments);
    Result<DemoChild> start_pg_program(const std::string& name, std::vector<std::string> arguments);
    // walvault VERB … with this stage's configuration. Errors: unavailable with its message.
    Result<std::string> walvault(std::vector<std::string> arguments);

    // Writes a file the unprivileged user can read. Errors: unavailable.
    Result<> write_file(const std::string& name, const std::string& text,
                        unsigned mode = 0600) const;
    // Of the agent and of the shop's server, for a person to end them.
    std::string process_ids() const;
    // From now on everything stays, also when this process ends.
    void keep() { keep_ = true; }

private:
    explicit DemoStage(bool outlive) : outlive_(outlive) {}
    Result<> make_directory(const std::string& parent);
    Result<> find_postgres(const std::string& given);
    Result<> place_program(const std::string& own_path);
    DemoCommand command(std::vector<std::string> arguments) const;
    Result<std::string> run(std::vector<std::string> arguments, std::chrono::seconds timeout);
    void end_restored_server();

    DemoAccount account_;
    std::string directory_;
    std::string pg_bin_;
    std::string program_;
    std::string server_version_;
    DemoChild postgres_;
    DemoChild agent_;
    bool outlive_;
    bool keep_ = false;
};

// The last `count` lines of a file, or nothing.
std::string last_lines(const std::string& path, std::size_t count);

}  // namespace walvault::agent
