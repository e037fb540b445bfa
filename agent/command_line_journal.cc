#include "agent/command_line_journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/command_line_verb.h"

namespace walvault::agent {
namespace {

constexpr std::array<std::string_view, 7> kJournalVerbs{"history", "changes", "show",  "rows",
                                                        "extract", "undo",    "follow"};

void add_database(CLI::App* verb, std::string& database) {
    verb->add_option("--database", database, "Which database, where several are journaled")
        ->type_name("NAME");
}

void add_range(CLI::App* verb, std::string& since, std::string& until) {
    verb->add_option("--since", since, "From when on")->type_name("TARGET");
    verb->add_option("--until", until, "Until when")->type_name("TARGET");
}

void add_table(CLI::App* verb, std::string& table) {
    verb->add_option("table", table, "The table: orders, public.orders, '\"odd name\".\"T\"'")
        ->required()
        ->type_name("TABLE");
}

void add_limit(CLI::App* verb, std::uint64_t& limit, const std::string& help) {
    verb->add_option("-L,--limit", limit, help)->type_name("N")->check(CLI::Range(1, 1'000'000));
}

void add_moment(CLI::App* verb, std::string& at, std::string& before) {
    CLI::Option* option =
        verb->add_option("--at", at, "As of then, including it")->type_name("TARGET");
    verb->add_option("--before", before, "As of just before it")
        ->type_name("TARGET")
        ->excludes(option);
}

void add_lists(CLI::App& app, JournalParsed& parsed) {
    RowHistoryArguments& history = parsed.history;
    CLI::App* verb = add_verb(app, "history", "Each version of a row: when, by whom, what changed",
                              "walvault history orders --key id=4711");
    add_table(verb, history.table);
    verb->add_option("--key", history.key,
                     "The row: COLUMN=VALUE, by comma where there are several")
        ->required()
        ->type_name("COLUMN=VALUE,…");
    add_range(verb, history.since, history.until);
    add_limit(verb, history.limit, "At most this many versions, the newest (100)");
    add_database(verb, history.database);

    ChangesArguments& changes = parsed.changes;
    verb = add_verb(app, "changes", "Each change of a table's rows",
                    "walvault changes orders --since 13:55 --kind delete");
    add_table(verb, changes.table);
    add_range(verb, changes.since, changes.until);
    verb->add_option("--kind", changes.kinds,
                     "Only these, by comma: insert, update, delete, truncate")
        ->type_name("KIND,…")
        ->delimiter(',');
    add_limit(verb, changes.limit, "At most this many, the newest (100)");
    add_database(verb, changes.database);

    ShowArguments& show = parsed.show;
    verb = add_verb(app, "show", "What one transaction did to rows", "walvault show xid:88502");
    verb->add_option("transaction", show.transaction, "Its number: xid:88502")
        ->required()
        ->type_name("XID");
    add_range(verb, show.since, show.until);
    add_database(verb, show.database);
}

void add_contents(CLI::App& app, JournalParsed& parsed) {
    RowsArguments& rows = parsed.rows;
    CLI::App* verb = add_verb(app, "rows", "A table's rows as of a moment",
                              "walvault rows orders --before xid:88502 --where customer=4711");
    add_table(verb, rows.table);
    add_moment(verb, rows.at, rows.before);
    verb->add_option("--where", rows.where, "Only rows with this value; may be repeated")
        ->type_name("COLUMN=VALUE")
        ->allow_extra_args(false);
    add_limit(verb, rows.limit, "At most this many rows (100 with -o text, else all)");
    add_database(verb, rows.database);

    ExtractArguments& extract = parsed.extract;
    verb = add_verb(app, "extract", "The same for COPY … FROM",
                    "walvault extract orders --at '2026-08-22 14:02' > orders.copy");
    add_table(verb, extract.table);
    add_moment(verb, extract.at, extract.before);
    verb->add_flag("--header", extract.header, "The columns' names in a first line, for HEADER");
    add_database(verb, extract.database);

    UndoArguments& undo = parsed.undo;
    verb = add_verb(app, "undo", "SQL that takes changes back; it is printed, never run",
                    "walvault undo xid:88502 > undo.sql");
    verb->add_option("transaction", undo.transaction, "A transaction: xid:88502")->type_name("XID");
    verb->add_option("--table", undo.table, "Only changes of this table")->type_name("TABLE");
    add_range(verb, undo.since, undo.until);
    verb->add_flag("--without-triggers", undo.without_triggers,
                   "Let the script turn off triggers and foreign keys, for a superuser");
    verb->add_flag("--partial", undo.partial,
                   "Let the script be committed though some changes cannot be taken back");
    add_database(verb, undo.database);

    FollowArguments& follow = parsed.follow;
    verb = add_verb(app, "follow", "Committed changes as JSON lines, as they come",
                    "walvault follow --table orders --from-lsn 0/3A8F210");
    verb->add_option("--table", follow.table, "Only changes of this table")->type_name("TABLE");
    verb->add_option("--from-lsn", follow.from_lsn,
                     "Go on behind this end_lsn; 0/0 for all there is; without it, from now on")
        ->type_name("LSN");
    verb->add_flag("--until-idle", follow.until_idle, "Stop where nothing new is there");
    add_database(verb, follow.database);
}

}  // namespace

void add_journal_verbs(CLI::App& app, JournalParsed& parsed) {
    add_lists(app, parsed);
    add_contents(app, parsed);
}

bool is_journal_verb(const std::string& verb) {
    return std::find(kJournalVerbs.begin(), kJournalVerbs.end(), verb) != kJournalVerbs.end();
}

Result<> check_journal(const std::string& verb, const JournalParsed& parsed,
                       const LogArguments& log) {
    if (verb == "log" && log.table.empty() && !log.database.empty())
        return usage("--database needs --table", "walvault log --table orders");
    const bool has_moment = verb == "rows" ? !parsed.rows.at.empty() || !parsed.rows.before.empty()
                            : verb == "extract"
                                ? !parsed.extract.at.empty() || !parsed.extract.before.empty()
                                : true;
    if (!has_moment)
        return usage(verb + " needs a moment: --at or --before",
                     "the newest there is: --at latest");
    const UndoArguments& undo = parsed.undo;
    if (verb == "undo" && undo.transaction.empty() && (undo.table.empty() || undo.since.empty()))
        return usage("undo needs a transaction, or --table and --since",
                     "walvault undo xid:88502, or --table orders --since 13:55 --until 14:02");
    return {};
}

Result<> check_output(const std::string& verb, Output output, const LogArguments& log) {
    const bool is_table_log = verb == "log" && !log.table.empty();
    if (output == Output::csv) {
        if (verb == "undo" || verb == "follow" || (!is_journal_verb(verb) && !is_table_log))
            return usage(fmt::format("{} does not answer in CSV", verb),
                         verb == "log" ? "log --table does" : "-o text, json or jsonl");
    }
    if (verb == "extract" && (output == Output::json || output == Output::jsonl))
        return usage("extract writes COPY's text format, or CSV with -o csv",
                     "in JSON: walvault rows");
    if (verb == "follow" && output == Output::json)
        return usage("follow has no end that a JSON document could have", "-o jsonl");
    return {};
}

}  // namespace walvault::agent
