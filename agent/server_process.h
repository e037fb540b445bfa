// ServerProcess: PostgreSQL's programs found by major version, and a restored server started and
// watched.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/restore_tree.h"
#include "proto/lsn.h"

namespace walvault::agent {

// The directory of `postgres` of that major: `given` (which must be of that major) if not empty,
// else /usr/lib/postgresql/N/bin, /usr/pgsql-N/bin, `pg_config --bindir`, the PATH. Errors:
// not_found, naming where it was looked for; unsupported if `given` is of another major.
Result<std::string> find_postgres(unsigned major, const std::string& given);

// Who a server in `directory` must belong to, when this process is root: the owner of the directory
// or of its nearest existing parent, unless that is root; then the user postgres. Nothing when this
// process is not root. Errors: not_found if there is no such user.
Result<std::optional<FileOwner>> server_owner(const std::string& directory);

// Runs a program to its end as `owner`, and gives what it wrote to stdout. Errors: io, with its
// stderr.
Result<std::string> run_program(const std::vector<std::string>& arguments,
                                const std::optional<FileOwner>& owner);

// A port on which nothing listens, from `first` on, neither on 127.0.0.1 nor as a socket in
// `directory`.
Result<unsigned> free_port(unsigned first, const std::string& socket_directory);
// Where the socket goes: the first of `configured` (comma separated) that `owner` may write into,
// else /run/postgresql, PGDATA where the name is short enough, /tmp.
std::string choose_socket_directory(const std::string& configured, const std::string& pgdata,
                                    const std::optional<FileOwner>& owner);

class ServerProcess {
public:
    struct Options {
        std::string bin_directory;
        std::string pgdata;
        unsigned port = 0;
        std::string socket_directory;
        std::string log_path;               // appended to
        std::vector<std::string> settings;  // "name=value", beat every file
        std::optional<FileOwner> owner;
    };
    // Starts postgres in a session of its own; it outlives this process. Errors: io.
    static Result<ServerProcess> start(const Options& options);

    // False once the server has ended.
    bool is_running();
    pid_t pid() const { return pid_; }
    // Fast shutdown; waits for the end. Errors: unavailable if it does not end within `patience`.
    Result<> stop(std::chrono::seconds patience);
    // The end of its log, at most `lines` lines.
    std::string log_tail(std::size_t lines) const;

private:
    pid_t pid_ = -1;
    std::string log_path_;
    bool ended_ = false;
};

struct ReplayState {
    bool in_recovery = true;
    bool paused = false;
    Lsn replayed_lsn;  // end of the last record replayed
};

// Connects through the socket as `owner` (or this user) and asks. Errors: unavailable (starting up,
// not consistent yet), refused (pg_hba.conf lets nobody in).
Result<ReplayState> ask_replay_state(const std::string& socket_directory, unsigned port,
                                     const std::optional<FileOwner>& owner);

}  // namespace walvault::agent
