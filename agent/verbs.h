// The verbs of the command line: arguments as values in, exit code out. Each lives in
// verb_<name>.cc.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/config.h"
#include "agent/exit_code.h"
#include "base/result.h"

namespace walvault::agent {

enum class Output { text, json, jsonl, csv };  // csv: verbs of the journal alone
enum class ProgressMode { automatic, tty, plain, json, none };
enum class ColorMode { automatic, always, never };

struct Globals {
    std::string config_path;  // --config, WALVAULT_CONFIG, /etc/walvault/walvault.toml
    std::string server;       // --server; empty: the only one
    // A tier to read: by its URL, with the file of the master key, in place of the configuration;
    // or by its name in the configuration.
    std::string from, key_path;
    bool from_is_name() const {
        return !from.empty() && from.find_first_of(":/") == std::string::npos;
    }
    Output output = Output::text;
    bool quiet = false;
    int verbose = 0;
    ColorMode color = ColorMode::automatic;
    ProgressMode progress = ProgressMode::automatic;
    bool dry_run = false;
    bool yes = false;
    std::string log_level;
    std::string program;  // absolute path of this executable, for restore_command
};

struct RunArguments {
    bool once = false;
};
struct InitArguments {
    std::string conninfo;
    std::string repo;
    std::string key_path;
    bool print_sql = false;
    bool no_backup = false;
    std::string name = "main";
};
struct BackupArguments {
    std::string label;
    bool fast = false;
};
struct StatusArguments {
    std::optional<int> watch_seconds;
};
struct InfoArguments {
    bool backups = false, timelines = false, gaps = false, points = false;
};
struct LogArguments {
    std::string since, until;
    std::vector<std::string> kinds;
    std::uint64_t min_rows = 0;
    std::uint64_t limit = 100;
    // With a table the row journal is asked, of `database`; empty: the only one that is journaled.
    std::string table, database;
};
// Of the row journal. Targets are texts in the grammar of docs/targets.md.
struct RowHistoryArguments {
    std::string table, database;
    std::string key;  // column=value,…
    std::string since, until;
    std::uint64_t limit = 100;
};
struct ChangesArguments {
    std::string table, database;
    std::string since, until;
    std::vector<std::string> kinds;
    std::uint64_t limit = 100;
};
struct ShowArguments {
    std::string transaction, database;
    std::string since, until;  // where the number was used more than once
};
struct RowsArguments {
    std::string table, database;
    std::string at, before;          // one of them
    std::vector<std::string> where;  // column=value
    std::uint64_t limit = 0;         // 0: 100 for people, all for programs
};
struct ExtractArguments {
    std::string table, database;
    std::string at, before;
    bool header = false;
};
struct UndoArguments {
    std::string transaction, table, database;
    std::string since, until;
    bool without_triggers = false;
    bool partial = false;  // the script is to be committed though some changes cannot be undone
};
struct FollowArguments {
    std::string table, database;
    std::string from_lsn;
    bool until_idle = false;
};
// Which history a target is looked for in; both empty: the one being followed, and what was before
// it.
struct HistoryArguments {
    unsigned timeline = 0;  // 0: any
    std::string history;    // how its id begins
};
struct ResolveArguments {
    std::string target;
    bool before = false;
    HistoryArguments history;
};
struct RestoreArguments {
    std::string to, before;
    HistoryArguments history;
    std::string pgdata;
    bool start = false;
    unsigned port = 0;                     // 0: chosen
    std::string action = "pause";          // pause | promote | shutdown
    unsigned jobs = 0;                     // 0: processors
    std::vector<std::string> tablespaces;  // OLD=NEW
    std::string wal = "auto";              // auto | copy | fetch
    std::string pg_bin;                    // directory of postgres; empty: found by version
    // Over [archive] of the configuration, or of the file `prices` with --from.
    std::string thaw_speed, thaw_poll, prices;
    unsigned thaw_days = 0;
};
struct WalGetArguments {
    std::string file, path;
};
struct VerifyArguments {
    std::string level = "chunks";
};
struct ExpireArguments {};
struct HoldArguments {
    std::string backup;
    std::string from, to;        // times
    std::string until, lasting;  // when it is over: a time, or a duration
    std::string reason;
    // Then the holds there are are listed.
    bool is_empty() const {
        return backup.empty() && from.empty() && to.empty() && until.empty() && lasting.empty() &&
               reason.empty();
    }
};
struct ReleaseArguments {
    std::string id, reason;
};
struct PointArguments {
    std::string name;
    bool list = false;
};
struct KeyArguments {
    std::string action, out;
};
struct ConfigArguments {
    std::string action, key;
    bool origin = false;
};
struct RepoArguments {
    std::string action;
    std::string name;  // a tier's; for copy the URL of what is copied
    std::string to;    // for copy: the URL of the copy
};
struct CheckArguments {};
struct DetachArguments {
    bool keep_slot = false;
};
struct DemoArguments {
    bool keep = false;
    std::string directory, pg_bin;
    std::uint64_t rows = 2000;
};

int verb_run(const Globals&, const RunArguments&);
int verb_init(const Globals&, const InitArguments&);
int verb_backup(const Globals&, const BackupArguments&);
int verb_status(const Globals&, const StatusArguments&);
int verb_info(const Globals&, const InfoArguments&);
int verb_log(const Globals&, const LogArguments&);
// What verb_log() does with a table.
int log_of_table(const Globals&, const LogArguments&);
int verb_history(const Globals&, const RowHistoryArguments&);
int verb_changes(const Globals&, const ChangesArguments&);
int verb_show(const Globals&, const ShowArguments&);
int verb_rows(const Globals&, const RowsArguments&);
int verb_extract(const Globals&, const ExtractArguments&);
int verb_undo(const Globals&, const UndoArguments&);
int verb_follow(const Globals&, const FollowArguments&);
int verb_resolve(const Globals&, const ResolveArguments&);
int verb_restore(const Globals&, const RestoreArguments&);
int verb_wal_get(const Globals&, const WalGetArguments&);
int verb_verify(const Globals&, const VerifyArguments&);
int verb_expire(const Globals&, const ExpireArguments&);
int verb_hold(const Globals&, const HoldArguments&);
int verb_release(const Globals&, const ReleaseArguments&);
int verb_point(const Globals&, const PointArguments&);
int verb_key(const Globals&, const KeyArguments&);
int verb_config(const Globals&, const ConfigArguments&);
int verb_repo(const Globals&, const RepoArguments&);
int verb_check(const Globals&, const CheckArguments&);
int verb_detach(const Globals&, const DetachArguments&);
int verb_demo(const Globals&, const DemoArguments&);

// Parses the command line and runs the verb. Never exits by itself.
int run_command_line(int argc, char** argv);

// One error on stderr, in the form of docs/cli.md: "error: what", "hint: what to do"; with -o json
// one object. Returns the exit code to leave with.
int report(const Globals& globals, const Error& error, std::optional<ExitCode> code = {});

// Of a signal that ended what was not done. Returns 130 or 143.
int report_signal(const Globals& globals, int signal);

// Level and form of the log, from the configuration and the flags. Errors: invalid_argument.
Result<> configure_log(const Globals& globals, Config& config);

// load_config with the globals' path and this process' environment.
Result<Config> load_config(const Globals& globals);

}  // namespace walvault::agent
