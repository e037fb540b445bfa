#include "agent/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/command_line_journal.h"
#include "agent/command_line_verb.h"
#include "agent/config_keys.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

constexpr const char* kDefaultConfig = "/etc/walvault/walvault.toml";

// Where CLI11 puts what it reads; numbers that need bounds are checked after the parse.
struct Parsed {
    Globals globals;
    RunArguments run;
    InitArguments init;
    BackupArguments backup;
    StatusArguments status;
    InfoArguments info;
    LogArguments log;
    ResolveArguments resolve;
    RestoreArguments restore;
    WalGetArguments wal_get;
    VerifyArguments verify;
    HoldArguments hold;
    ReleaseArguments release;
    PointArguments point;
    KeyArguments key;
    ConfigArguments config;
    RepoArguments repo;
    DetachArguments detach;
    DemoArguments demo;
    JournalParsed journal;
    std::string help_verb;
    bool version = false;
};

const std::map<std::string, Output> kOutputs{
    {"text", Output::text}, {"json", Output::json}, {"jsonl", Output::jsonl}, {"csv", Output::csv}};
const std::map<std::string, ColorMode> kColors{
    {"auto", ColorMode::automatic}, {"always", ColorMode::always}, {"never", ColorMode::never}};
const std::map<std::string, ProgressMode> kProgressModes{{"auto", ProgressMode::automatic},
                                                         {"tty", ProgressMode::tty},
                                                         {"plain", ProgressMode::plain},
                                                         {"json", ProgressMode::json},
                                                         {"none", ProgressMode::none}};

// CLI11's own transformer lists the enumerators' numbers in its help and errors.
template <class Value>
CLI::Option* add_choice(CLI::App& app, const std::string& names, Value& into,
                        const std::map<std::string, Value>& choices, const std::string& help) {
    std::string list;
    for (const auto& [name, value] : choices)
        list += (list.empty() ? "" : "|") + name;
    auto take = [&into, &choices, list](const std::string& text) {
        auto found = choices.find(text);
        if (found == choices.end())
            throw CLI::ValidationError(fmt::format("\"{}\" is none of {}", printable(text), list));
        into = found->second;
    };
    return app.add_option_function<std::string>(names, take, help)->type_name(list);
}

void add_globals(CLI::App& app, Globals& globals) {
    app.add_option("-c,--config", globals.config_path, "The configuration")->type_name("FILE");
    app.add_option("-s,--server", globals.server, "Which server, when several are configured")
        ->type_name("NAME");
    app.add_option(
           "--from", globals.from,
           "Read this copy of a repository: a URL, without any configuration, with --key-file; "
           "or the NAME of [repo.NAME]")
        ->type_name("URL|NAME");
    app.add_option("--key-file", globals.key_path, "The master key of the repository of --from")
        ->type_name("FILE");
    add_choice(app, "-o,--output", globals.output, kOutputs, "The form of the answer");
    app.add_flag("-q,--quiet", globals.quiet, "No progress, only the answer");
    app.add_flag("-v,--verbose", globals.verbose, "More of the log: debug, -vv trace");
    add_choice(app, "--color", globals.color, kColors, "Colour; NO_COLOR is obeyed");
    add_choice(app, "--progress", globals.progress, kProgressModes, "How progress is shown");
    app.add_flag("-n,--dry-run", globals.dry_run, "Say what would be done, change nothing");
    app.add_flag("-y,--yes", globals.yes,
                 "Do not ask before something is destroyed or costs (detach, release, restore)");
    app.add_option("--log-level", globals.log_level, "Over the configuration's [log] level")
        ->type_name("LEVEL");
}

// An option of zero or one value without one is given an empty text.
bool has_value(const std::vector<std::string>& values) {
    return !values.empty() && !values.front().empty() && values.front() != "{}";
}

void add_agent_verbs(CLI::App& app, Parsed& parsed) {
    CLI::App* run =
        add_verb(app, "run", "The agent, in the foreground", "walvault run --server main");
    run->add_flag("--once", parsed.run.once, "Catch up with the server, then exit");

    InitArguments& init = parsed.init;
    CLI::App* verb = add_verb(app, "init", "First set-up: key, repository, role and configuration",
                              "walvault init --conninfo \"host=/run/postgresql user=postgres\"");
    verb->add_option("--conninfo", init.conninfo,
                     "How to reach PostgreSQL, as a role that may create roles")
        ->type_name("CONNINFO");
    verb->add_option("--repo", init.repo, "The repository, file:///absolute/path")
        ->type_name("URL");
    verb->add_option("--key", init.key_path, "The key file; made if it is not there")
        ->type_name("FILE");
    verb->add_option("--name", init.name, "The server's name in the configuration")
        ->type_name("NAME");
    verb->add_flag("--print-sql", init.print_sql,
                   "Print the statements for the server and do nothing");
    verb->add_flag("--no-backup", init.no_backup, "Configure base backups on request only");

    BackupArguments& backup = parsed.backup;
    verb = add_verb(app, "backup", "A base backup now",
                    "walvault backup --fast --label before-upgrade");
    verb->add_option("--label", backup.label, "A name to find it by")->type_name("TEXT");
    verb->add_flag("--fast", backup.fast, "Ask for an immediate checkpoint");

    verb = add_verb(app, "status", "How it is now: what a crash would lose, lag, slot, jobs",
                    "walvault status --watch");
    const CLI::callback_t watch = [&parsed](const std::vector<std::string>& values) {
        int seconds = 2;
        if (has_value(values) && !CLI::detail::lexical_cast(values.front(), seconds)) return false;
        parsed.status.watch_seconds = seconds;
        return seconds >= 1 && seconds <= 3600;
    };
    verb->add_option("--watch", watch, "Repeat every SECS seconds (2)")
        ->expected(0, 1)
        ->type_name("SECS");

    verb = add_verb(app, "detach", "Stop for good: drop the slot, say what remains",
                    "walvault detach --server main");
    verb->add_flag("--keep-slot", parsed.detach.keep_slot,
                   "Leave the slot; it goes on holding back WAL");

    DemoArguments& demo = parsed.demo;
    verb = add_verb(app, "demo", "The whole story on a throw-away server", "walvault demo");
    verb->add_flag("--keep", demo.keep, "Leave everything there afterwards");
    verb->add_option("--dir", demo.directory, "Where; a new directory under TMPDIR otherwise")
        ->type_name("DIR");
    verb->add_option("--pg-bin", demo.pg_bin, "The directory of PostgreSQL's programs")
        ->type_name("DIR");
    verb->add_option("--rows", demo.rows, "How many rows to begin with")
        ->type_name("N")
        ->check(CLI::Range(1, 10'000'000));
}

void add_history_options(CLI::App* verb, HistoryArguments& history) {
    verb->add_option("--timeline", history.timeline, "Look for the target on this timeline")
        ->type_name("N")
        ->check(CLI::PositiveNumber);
    verb->add_option("--history", history.history,
                     "Look for it in this history (the beginning of its id, from info --timelines)")
        ->type_name("ID");
}

void add_history_verbs(CLI::App& app, Parsed& parsed) {
    InfoArguments& info = parsed.info;
    CLI::App* verb = add_verb(app, "info", "What can be restored: window, gaps, base backups",
                              "walvault info --backups");
    verb->add_flag("--backups", info.backups, "Each base backup");
    verb->add_flag("--timelines", info.timelines,
                   "Each history as a tree: forks, promotions, gaps");
    verb->add_flag("--gaps", info.gaps, "Each gap");
    verb->add_flag("--points", info.points, "Each named restore point");

    LogArguments& log = parsed.log;
    verb = add_verb(app, "log", "What happened when: commits, DROP, TRUNCATE, restore points",
                    "walvault log --since 13:55 --kind drop,truncate");
    verb->add_option("--since", log.since, "From when on")->type_name("TIME");
    verb->add_option("--until", log.until, "Until when")->type_name("TIME");
    verb->add_option("--kind", log.kinds, "Only these, by comma")
        ->type_name("KIND,…")
        ->delimiter(',');
    verb->add_option("--min-rows", log.min_rows, "Only commits of at least this many rows")
        ->type_name("N");
    verb->add_option("--table", log.table,
                     "Which transactions changed this table, by the row journal; kinds are then "
                     "insert, update, delete, truncate")
        ->type_name("TABLE");
    verb->add_option("--database", log.database, "With --table: where several are journaled")
        ->type_name("NAME");
    verb->add_option("-L,--limit", log.limit, "At most this many lines (100)")
        ->type_name("N")
        ->check(CLI::Range(1, 1'000'000));

    verb = add_verb(app, "resolve", "What a target means: LSN, its neighbours, base backup, size",
                    "walvault resolve \"2026-08-22 14:02:58 Europe/Berlin\"");
    verb->add_option("target", parsed.resolve.target,
                     "time:T, lsn:L, xid:X, name:N, backup:B, latest, earliest, …")
        ->required()
        ->type_name("TARGET");
    verb->add_flag("--before", parsed.resolve.before, "Just before it instead of including it");
    add_history_options(verb, parsed.resolve.history);

    add_verb(app, "check", "Whether the server is as the configuration needs it", "walvault check");

    verb = add_verb(app, "point", "A named restore point", "walvault point before_release_42");
    CLI::Option* name = verb->add_option("name", parsed.point.name, "Its name")->type_name("NAME");
    verb->add_flag("--list", parsed.point.list, "Those there are")->excludes(name);

    verb = add_verb(app, "repo", "Look at the repository or mend its index", "walvault repo stat");
    verb->add_option("action", parsed.repo.action, "ls, stat, copy, rebuild-index, add or remove")
        ->required()
        ->type_name("ACTION")
        ->check(CLI::IsMember({"ls", "stat", "copy", "rebuild-index", "add", "remove"}));
    verb->add_option("name", parsed.repo.name,
                     "A second copy, [repo.NAME]; for copy: the URL of what is copied")
        ->type_name("NAME");
    verb->add_option("to", parsed.repo.to, "For copy: the URL of an empty place")->type_name("URL");
}

void add_keeping_verbs(CLI::App& app, Parsed& parsed) {
    CLI::App* verb = add_verb(app, "verify", "Read back what is stored and check it",
                              "walvault verify --level wal");
    verb->add_option("--level", parsed.verify.level, "chunks or wal")
        ->type_name("LEVEL")
        ->check(CLI::IsMember({"chunks", "wal"}));

    add_verb(app, "expire", "Let go what the window and its rules do not keep",
             "walvault expire --dry-run");

    HoldArguments& hold = parsed.hold;
    verb = add_verb(app, "hold", "Keep what it names from expiry; alone, list what is held",
                    "walvault hold --from 2026-03-01 --to 2026-03-31 --reason 'case 4711'");
    CLI::Option* base =
        verb->add_option("--backup", hold.backup, "This base backup")->type_name("ID");
    verb->add_option("--from", hold.from, "Each moment from here on")
        ->type_name("TIME")
        ->excludes(base);
    verb->add_option("--to", hold.to, "The last of these moments")->type_name("TIME");
    CLI::Option* until =
        verb->add_option("--until", hold.until, "When the hold is over")->type_name("TIME");
    verb->add_option("--for", hold.lasting, "How long it lasts, as 90d")
        ->type_name("DURATION")
        ->excludes(until);
    verb->add_option("--reason", hold.reason, "Why, for who finds it later")->type_name("TEXT");

    verb = add_verb(app, "release", "Let what a hold keeps expire again",
                    "walvault release H123 --reason 'case closed' --yes");
    verb->add_option("id", parsed.release.id, "The hold")->required()->type_name("HOLD");
    verb->add_option("--reason", parsed.release.reason, "Why, for the ledger")
        ->required()
        ->type_name("TEXT");
}

void add_restore_verbs(CLI::App& app, Parsed& parsed) {
    RestoreArguments& restore = parsed.restore;
    CLI::App* verb =
        add_verb(app, "restore", "A cluster as it was, in a new directory",
                 "walvault restore --before xid:88502 --pgdata /srv/pg/restored --start");
    CLI::Option* to = verb->add_option("--to", restore.to, "Keep commits up to and including this")
                          ->type_name("TARGET");
    verb->add_option("--before", restore.before, "Keep commits up to, not including, this")
        ->type_name("TARGET")
        ->excludes(to);
    verb->add_option("--pgdata", restore.pgdata, "The new data directory: empty or not there")
        ->type_name("DIR")
        ->required();
    const CLI::callback_t start = [&restore](const std::vector<std::string>& values) {
        restore.start = true;
        if (!has_value(values)) return true;
        return CLI::detail::lexical_cast(values.front(), restore.port) && restore.port >= 1 &&
               restore.port <= 65535;
    };
    verb->add_option("--start", start, "Start the server afterwards, on PORT if given")
        ->expected(0, 1)
        ->type_name("PORT");
    verb->add_option("--action", restore.action, "At the target: pause, promote or shutdown")
        ->type_name("ACTION")
        ->check(CLI::IsMember({"pause", "promote", "shutdown"}));
    verb->add_option("--jobs", restore.jobs, "How many at a time; as many as processors otherwise")
        ->type_name("N")
        ->check(CLI::Range(1, 256));
    add_history_options(verb, restore.history);
    verb->add_option("--tablespace", restore.tablespaces,
                     "Put a tablespace elsewhere; may be repeated")
        ->type_name("OLD=NEW")
        ->allow_extra_args(false);
    verb->add_option("--wal", restore.wal,
                     "copy all WAL at once, or let replay fetch it; auto by its size")
        ->type_name("HOW")
        ->check(CLI::IsMember({"auto", "copy", "fetch"}));
    verb->add_option("--pg-bin", restore.pg_bin, "The directory of PostgreSQL's programs")
        ->type_name("DIR");

    verb->add_option("--thaw-speed", restore.thaw_speed,
                     "Of what is archived in a bucket: standard, bulk or expedited")
        ->type_name("SPEED");
    verb->add_option("--thaw-days", restore.thaw_days, "How long the store keeps what was thawed")
        ->type_name("N")
        ->check(CLI::Range(1, 365));
    verb->add_option("--thaw-poll", restore.thaw_poll, "How often to ask whether it is thawed")
        ->type_name("TIME");
    verb->add_option("--prices", restore.prices,
                     "With --from: a configuration whose [archive] table counts")
        ->type_name("FILE");

    verb = add_verb(app, "wal-get", "For restore_command: 0 found, 1 not there, 200 anything else",
                    "restore_command = 'walvault wal-get %f %p'");
    verb->add_option("file", parsed.wal_get.file, "%f")->required()->type_name("FILE");
    verb->add_option("path", parsed.wal_get.path, "%p")->required()->type_name("PATH");
}

void add_setting_verbs(CLI::App& app, Parsed& parsed) {
    CLI::App* verb = add_verb(app, "key", "The master key: generate, show-id",
                              "walvault key generate --out /etc/walvault/repo.key");
    verb->add_option("action", parsed.key.action, "generate or show-id")
        ->required()
        ->type_name("ACTION")
        ->check(CLI::IsMember({"generate", "show-id"}));
    verb->add_option("--out", parsed.key.out, "The file to make; for show-id the file to read")
        ->type_name("FILE");

    verb = add_verb(app, "config", "The configuration: check, show, default, explain KEY",
                    "walvault config show --origin");
    verb->add_option("action", parsed.config.action, "check, show, default or explain")
        ->required()
        ->type_name("ACTION")
        ->check(CLI::IsMember({"check", "show", "default", "explain"}));
    verb->add_option("key", parsed.config.key, "For explain: the key")->type_name("KEY");
    verb->add_flag("--origin", parsed.config.origin, "For show: where each value comes from");

    verb = add_verb(app, "help", "Help for a verb", "walvault help restore");
    verb->add_option("verb", parsed.help_verb, "The verb")->type_name("VERB");
    add_verb(app, "version", "The version of this program", "walvault version -o json");
}

// Flags are understood on both sides of the verb: a verb hands up what it does not know.
void build(CLI::App& app, Parsed& parsed) {
    app.name("walvault");
    app.footer("walvault help VERB tells more. First steps: walvault demo, then walvault init.");
    app.set_help_flag("-h,--help", "This help");
    app.add_flag("--version", parsed.version, "The version of this program");
    add_globals(app, parsed.globals);
    add_agent_verbs(app, parsed);
    add_history_verbs(app, parsed);
    add_keeping_verbs(app, parsed);
    add_journal_verbs(app, parsed.journal);
    add_restore_verbs(app, parsed);
    add_setting_verbs(app, parsed);
    app.require_subcommand(0, 1);
    for (CLI::App* verb : app.get_subcommands({}))
        verb->fallthrough();
}

std::vector<std::string> verb_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(verb->get_name());
    return names;
}

CLI::App* chosen_verb(const CLI::App& app) {
    auto chosen = app.get_subcommands();
    return chosen.empty() ? nullptr : chosen.front();
}

CLI::App* find_verb(CLI::App& app, const std::string& name) {
    for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; }))
        if (verb->get_name() == name) return verb;
    return nullptr;
}

Result<CommandLine> help_for(CLI::App& app, const std::string& verb) {
    if (verb.empty()) return CommandLine{{}, HelpText{app.help()}};
    CLI::App* found = find_verb(app, verb);
    if (found == nullptr)
        return usage(fmt::format("there is no verb \"{}\"{}", printable(verb),
                                 did_you_mean(verb, verb_names(app))),
                     "walvault help lists them");
    std::string text = found->help("walvault");
    return CommandLine{{}, HelpText{text + "\nFlags for every verb: walvault --help\n"}};
}

Result<VerbArguments> arguments_of(const std::string& verb, const Parsed& parsed) {
    if (verb == "run") return parsed.run;
    if (verb == "init") return parsed.init;
    if (verb == "backup") return parsed.backup;
    if (verb == "status") return parsed.status;
    if (verb == "info") return parsed.info;
    if (verb == "log") return parsed.log;
    if (verb == "history") return parsed.journal.history;
    if (verb == "changes") return parsed.journal.changes;
    if (verb == "show") return parsed.journal.show;
    if (verb == "rows") return parsed.journal.rows;
    if (verb == "extract") return parsed.journal.extract;
    if (verb == "undo") return parsed.journal.undo;
    if (verb == "follow") return parsed.journal.follow;
    if (verb == "resolve") return parsed.resolve;
    if (verb == "restore") return parsed.restore;
    if (verb == "wal-get") return parsed.wal_get;
    if (verb == "verify") return parsed.verify;
    if (verb == "expire") return ExpireArguments{};
    if (verb == "hold") return parsed.hold;
    if (verb == "release") return parsed.release;
    if (verb == "check") return CheckArguments{};
    if (verb == "point") return parsed.point;
    if (verb == "key") return parsed.key;
    if (verb == "config") return parsed.config;
    if (verb == "repo") return parsed.repo;
    if (verb == "detach") return parsed.detach;
    if (verb == "demo") return parsed.demo;
    return VersionArguments{};
}

// These read a repository and nothing else.
Result<> check_from(const std::string& verb, const Globals& globals) {
    constexpr std::array<std::string_view, 7> kReaders{"info",   "log",     "resolve", "restore",
                                                       "verify", "wal-get", "repo"};
    if (globals.from.empty() && globals.key_path.empty()) return {};
    if (std::find(kReaders.begin(), kReaders.end(), verb) == kReaders.end() &&
        !is_journal_verb(verb))
        return usage(fmt::format("{} does not read from a copy", verb),
                     "--from and --key-file are for info, log, resolve, restore, verify, repo, "
                     "wal-get and the verbs of the journal");
    if (globals.from.empty() && verb != "repo")
        return usage("--key-file needs --from",
                     "--from file:///mnt/backup/walvault or s3://bucket/prefix");
    if (globals.key_path.empty() && !globals.from_is_name())
        return usage("--from URL needs --key-file",
                     "the file of the master key, which is kept apart from every copy");
    return {};
}

Result<> check_repo(const RepoArguments& repo, const Globals& globals) {
    const bool looks = repo.action == "ls" || repo.action == "stat";
    const bool copies = repo.action == "copy";
    if (repo.action == "add" && repo.name.empty())
        return usage("repo add needs a name", "walvault repo add NAME, for [repo.NAME]");
    if (repo.action == "remove" && repo.name.empty())
        return usage("repo remove needs a name", "walvault repo remove NAME");
    if (repo.action == "rebuild-index" && !repo.name.empty())
        return usage("repo rebuild-index takes no name");
    if (copies && (repo.name.empty() || repo.to.empty()))
        return usage("repo copy needs two places",
                     "walvault repo copy file:///var/lib/walvault file:///mnt/usb/walvault");
    if (!copies && !repo.to.empty())
        return usage(fmt::format("repo {} copies nothing", repo.action));
    if (!globals.from.empty() && !looks)
        return usage(fmt::format("repo {} does not read --from", repo.action),
                     copies ? "both places are named: repo copy URL URL" : "");
    if (!globals.from.empty() && !repo.name.empty())
        return usage("--from names the place already", "leave the name out");
    if (globals.from.empty() && !globals.key_path.empty() && !copies)
        return usage("--key-file needs --from", "--from file:///mnt/backup/walvault");
    return {};
}

// What CLI11 cannot say: arguments that need one another.
Result<> check_together(const std::string& verb, const Parsed& parsed) {
    if (verb == "restore" && parsed.restore.to.empty() && parsed.restore.before.empty())
        return usage("restore needs a target: --to or --before",
                     "the newest there is: --to latest");
    if (verb == "point" && parsed.point.name.empty() && !parsed.point.list)
        return usage("point needs a name, or --list", "walvault point before_release_42");
    if (verb == "config" && parsed.config.action == "explain" && parsed.config.key.empty())
        return usage("config explain needs a key", "walvault config explain server.main.slot");
    if (verb == "config" && parsed.config.action != "explain" && !parsed.config.key.empty())
        return usage(fmt::format("config {} takes no key", parsed.config.action));
    if (verb == "repo") WV_CHECK(check_repo(parsed.repo, parsed.globals));
    if (verb == "restore" && !parsed.restore.prices.empty() && parsed.globals.from.empty())
        return usage("--prices is for --from", "[archive] prices of the configuration count here");
    if (verb == "key" && parsed.key.action == "generate" && parsed.key.out.empty())
        return usage("key generate needs --out FILE",
                     "walvault key generate --out /etc/walvault/repo.key");
    for (const std::string& pair : parsed.restore.tablespaces)
        if (std::size_t equals = pair.find('=');
            equals == 0 || equals == std::string::npos || equals + 1 == pair.size())
            return usage(fmt::format("--tablespace \"{}\" is not OLD=NEW", printable(pair)));
    return {};
}

Result<CommandLine> after_parse(CLI::App& app, Parsed& parsed) {
    CLI::App* verb = chosen_verb(app);
    if (parsed.version) {
        WV_CHECK(check_output("version", parsed.globals.output, parsed.log));
        return CommandLine{parsed.globals, VersionArguments{}};
    }
    if (verb == nullptr)
        return usage("no verb was given",
                     "walvault --help lists them; walvault demo shows what it is about");
    std::string name = verb->get_name();
    if (name == "help") return help_for(app, parsed.help_verb);
    WV_CHECK(check_from(name, parsed.globals));
    WV_CHECK(check_output(name, parsed.globals.output, parsed.log));
    WV_CHECK(check_journal(name, parsed.journal, parsed.log));
    WV_CHECK(check_together(name, parsed));
    WV_TRY(VerbArguments arguments, arguments_of(name, parsed));
    return CommandLine{parsed.globals, std::move(arguments)};
}

Error usage_error(const CLI::App& app, const CLI::ParseError& error,
                  const std::vector<std::string>& arguments) {
    const CLI::App* verb = chosen_verb(app);
    if (verb == nullptr) {
        // The first word that is no flag was meant as the verb.
        static const std::vector<std::string> kWithValue{
            "-c",      "--config",   "-s",          "--server", "-o",        "--output",
            "--color", "--progress", "--log-level", "--from",   "--key-file"};
        for (std::size_t i = 0; i < arguments.size(); ++i) {
            if (std::find(kWithValue.begin(), kWithValue.end(), arguments[i]) != kWithValue.end())
                ++i;
            else if (!arguments[i].empty() && arguments[i].front() != '-')
                return {Errc::invalid_argument,
                        fmt::format("there is no verb \"{}\"{}", printable(arguments[i]),
                                    did_you_mean(arguments[i], verb_names(app))),
                        "walvault --help lists them"};
        }
    }
    std::string hint = verb == nullptr ? "walvault --help" : "walvault help " + verb->get_name();
    return {Errc::invalid_argument, printable(error.what()), hint};
}

}  // namespace

bool is_wal_get(const std::vector<std::string>& arguments) {
    return std::find(arguments.begin(), arguments.end(), "wal-get") != arguments.end();
}

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments,
                                       const std::map<std::string, std::string>& environment,
                                       Globals& globals) {
    Parsed parsed;
    parsed.globals = globals;
    auto configured = environment.find("WALVAULT_CONFIG");
    bool given = configured != environment.end() && !configured->second.empty();
    parsed.globals.config_path = given ? configured->second : kDefaultConfig;
    CLI::App app("Continuous data protection for PostgreSQL: restore to any commit.");
    try {
        build(app, parsed);
        app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    } catch (const CLI::CallForHelp&) {
        CLI::App* verb = chosen_verb(app);
        return help_for(app, verb == nullptr ? "" : verb->get_name());
    } catch (const CLI::ParseError& error) {
        globals = parsed.globals;
        return fail(usage_error(app, error, arguments));
    } catch (const std::exception& error) {
        globals = parsed.globals;
        return usage(printable(error.what()));
    }
    globals = parsed.globals;
    return after_parse(app, parsed);
}

}  // namespace walvault::agent
