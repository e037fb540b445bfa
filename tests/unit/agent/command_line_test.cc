#include "agent/command_line.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

Result<CommandLine> parse(std::vector<std::string> arguments,
                          std::map<std::string, std::string> environment = {}) {
    Globals globals;
    return parse_command_line(arguments, environment, globals);
}

template <class Arguments>
Arguments arguments_of(std::vector<std::string> words) {
    auto parsed = parse(std::move(words));
    REQUIRE_MESSAGE(parsed, parsed.error().message);
    REQUIRE(std::holds_alternative<Arguments>(parsed->arguments));
    return std::get<Arguments>(parsed->arguments);
}

std::string message_of(std::vector<std::string> words) {
    auto parsed = parse(std::move(words));
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == Errc::invalid_argument);
    return parsed.error().message;
}

TEST_CASE("Global flags stand before or after the verb") {
    for (std::vector<std::string> words :
         {std::vector<std::string>{"-o", "json", "-s", "a", "-n", "-vv", "info", "--gaps"},
          {"info", "--gaps", "-o", "json", "-s", "a", "-n", "-v", "-v"}}) {
        auto parsed = parse(words);
        REQUIRE_MESSAGE(parsed, parsed.error().message);
        CHECK(parsed->globals.output == Output::json);
        CHECK(parsed->globals.server == "a");
        CHECK(parsed->globals.dry_run);
        CHECK(parsed->globals.verbose == 2);
        CHECK(std::get<InfoArguments>(parsed->arguments).gaps);
    }
}

TEST_CASE("The configuration is the flag's, else the variable's, else the usual one") {
    CHECK(parse({"run"})->globals.config_path == "/etc/walvault/walvault.toml");
    CHECK(parse({"run"}, {{"WALVAULT_CONFIG", "/v"}})->globals.config_path == "/v");
    CHECK(parse({"run", "-c", "/f"}, {{"WALVAULT_CONFIG", "/v"}})->globals.config_path == "/f");
}

TEST_CASE("Targets are passed on as they are") {
    auto restore = arguments_of<RestoreArguments>(
        {"restore", "--before", "2026-08-22 14:02:58.113 CEST", "--pgdata", "/d", "--start",
         "--tablespace", "/a=/b", "--tablespace", "/c=/d", "--jobs", "3"});
    CHECK(restore.before == "2026-08-22 14:02:58.113 CEST");
    CHECK(restore.start);
    CHECK(restore.port == 0);
    CHECK(restore.tablespaces == std::vector<std::string>{"/a=/b", "/c=/d"});
    CHECK(restore.jobs == 3);
    CHECK(arguments_of<ResolveArguments>({"resolve", "xid:739", "--before"}).target == "xid:739");
    CHECK(arguments_of<RestoreArguments>(
              {"restore", "--to", "latest", "--pgdata", "/d", "--start=5433"})
              .port == 5433);
}

TEST_CASE("Values that may be left out have their defaults") {
    CHECK_FALSE(arguments_of<StatusArguments>({"status"}).watch_seconds);
    CHECK(arguments_of<StatusArguments>({"status", "--watch"}).watch_seconds == 2);
    CHECK(arguments_of<StatusArguments>({"status", "--watch=7"}).watch_seconds == 7);
    CHECK(arguments_of<LogArguments>({"log", "--kind", "drop,truncate"}).kinds ==
          std::vector<std::string>{"drop", "truncate"});
    CHECK(arguments_of<LogArguments>({"log", "-L", "5"}).limit == 5);
    CHECK(arguments_of<DemoArguments>({"demo"}).rows == 2000);
}

TEST_CASE("What cannot be right is refused") {
    for (std::vector<std::string> words :
         {std::vector<std::string>{},
          {"restore", "--pgdata", "/d"},
          {"restore", "--to", "a"},
          {"restore", "--to", "a", "--before", "b", "--pgdata", "/d"},
          {"restore", "--to", "a", "--pgdata", "/d", "--tablespace", "=x"},
          {"restore", "--to", "a", "--pgdata", "/d", "--start=70000"},
          {"status", "--watch=0"},
          {"info", "--nonsense"},
          {"-o", "xml", "info"},
          {"point"},
          {"point", "a", "--list"},
          {"repo", "drop"},
          {"config", "explain"},
          {"config", "show", "log.level"},
          {"key", "generate"},
          {"wal-get", "only_one"},
          {"demo", "--rows", "0"},
          {"run", "info"},
          {"verify", "--level", "everything"},
          {"resolve"}})
        CHECK_FALSE(parse(words));
}

TEST_CASE("A copy is read with its key, by the verbs that only read") {
    for (const char* verb : {"info", "log", "verify"}) {
        auto parsed = parse({verb, "--from", "file:///mnt/b", "--key-file", "/k"});
        REQUIRE_MESSAGE(parsed, parsed.error().message);
        CHECK(parsed->globals.from == "file:///mnt/b");
        CHECK(parsed->globals.key_path == "/k");
    }
    CHECK(parse({"--from", "file:///b", "--key-file", "/k", "wal-get", "f", "p"}));
    CHECK(parse(
        {"restore", "--to", "latest", "--pgdata", "d", "--from", "file:///b", "--key-file", "/k"}));
    CHECK(message_of({"info", "--from", "file:///b"}).find("--key-file") != std::string::npos);
    CHECK(message_of({"info", "--key-file", "/k"}).find("--from") != std::string::npos);
    for (const char* verb : {"run", "status", "backup", "detach", "init"})
        CHECK(message_of({verb, "--from", "file:///b", "--key-file", "/k"}).find(verb) !=
              std::string::npos);
    CHECK(arguments_of<RepoArguments>({"repo", "add", "nas"}).name == "nas");
    CHECK(message_of({"repo", "add"}).find("name") != std::string::npos);
    CHECK(arguments_of<RepoArguments>({"repo", "stat", "nas"}).name == "nas");
    CHECK(parse({"repo", "ls", "--from", "file:///b", "--key-file", "/k"}));
    CHECK(arguments_of<RepoArguments>({"repo", "copy", "file:///a", "file:///b"}).to ==
          "file:///b");
    CHECK(parse({"repo", "copy", "file:///a", "file:///b", "--key-file", "/k"}));
    for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
             {"repo", "rebuild-index", "nas"},
             {"repo", "copy", "file:///a"},
             {"repo", "stat", "nas", "more"},
             {"repo", "stat", "--key-file", "/k"},
             {"repo", "stat", "nas", "--from", "file:///b", "--key-file", "/k"},
             {"repo", "add", "nas", "--from", "file:///b", "--key-file", "/k"},
             {"restore", "--to", "latest", "--pgdata", "d", "--prices", "f"}})
        CHECK_FALSE(parse(wrong));
}

TEST_CASE("An unknown verb suggests the nearest") {
    CHECK(message_of({"retsore", "--to", "latest"}) ==
          "there is no verb \"retsore\", did you mean \"restore\"?");
    CHECK(message_of({"-s", "main", "stauts"}) ==
          "there is no verb \"stauts\", did you mean \"status\"?");
    CHECK(message_of({"help", "lgo"}).find("did you mean \"log\"?") != std::string::npos);
}

TEST_CASE("Every verb has help with an example") {
    for (std::string verb :
         {"run",     "init",    "backup", "status", "info", "log",     "resolve",
          "restore", "wal-get", "verify", "expire", "hold", "release", "point",
          "key",     "config",  "repo",   "detach", "demo", "help",    "version"}) {
        std::string text = arguments_of<HelpText>({"help", verb}).text;
        CHECK_MESSAGE(text.find("Example:\n") != std::string::npos, verb);
        CHECK(arguments_of<HelpText>({verb, "--help"}).text == text);
        CHECK(text.find("walvault " + verb + " " + verb) == std::string::npos);
        CHECK(arguments_of<HelpText>({"--help"}).text.find("\n  " + verb) != std::string::npos);
    }
}

TEST_CASE("The form of the answer is known even when the rest is wrong") {
    Globals globals;
    CHECK_FALSE(parse_command_line({"-o", "json", "info", "--nonsense"}, {}, globals));
    CHECK(globals.output == Output::json);
}

TEST_CASE("A line for wal-get is recognised whatever else is wrong with it") {
    CHECK(is_wal_get({"-c", "/x", "wal-get"}));
    CHECK_FALSE(is_wal_get({"restore"}));
}

TEST_CASE("Verbs of the row journal take a table, a moment and a range") {
    const auto rows = arguments_of<RowsArguments>(
        {"rows", "shop.orders", "--before", "xid:7", "--where", "a=1", "--where", "b=2"});
    CHECK(rows.table == "shop.orders");
    CHECK(rows.before == "xid:7");
    CHECK(rows.where == std::vector<std::string>{"a=1", "b=2"});
    CHECK(rows.limit == 0);
    const auto history = arguments_of<RowHistoryArguments>(
        {"history", "t", "--key", "a=1,b=2", "--since", "1h", "--until", "lsn:0/1"});
    CHECK(history.key == "a=1,b=2");
    CHECK(history.limit == 100);
    const auto log = arguments_of<LogArguments>(
        {"log", "--table", "t", "--kind", "delete,truncate", "--database", "shop"});
    CHECK(log.kinds == std::vector<std::string>{"delete", "truncate"});
    CHECK(log.database == "shop");
    CHECK(arguments_of<UndoArguments>({"undo", "xid:7", "--without-triggers"}).without_triggers);
    CHECK(
        arguments_of<FollowArguments>({"follow", "--from-lsn", "0/0", "--until-idle"}).until_idle);
    CHECK(arguments_of<ChangesArguments>({"changes", "t", "-L", "3"}).limit == 3);
    CHECK(arguments_of<ShowArguments>({"show", "xid:7"}).transaction == "xid:7");
    CHECK(arguments_of<ExtractArguments>({"extract", "t", "--at", "latest"}).at == "latest");
}

TEST_CASE("What the verbs of the row journal need of one another is said") {
    CHECK(message_of({"rows", "t"}).find("--at or --before") != std::string::npos);
    CHECK(message_of({"extract", "t"}).find("--at or --before") != std::string::npos);
    CHECK_FALSE(parse({"rows", "t", "--at", "latest", "--before", "latest"}));
    CHECK_FALSE(parse({"undo"}));
    CHECK_FALSE(parse({"undo", "--table", "t"}));
    CHECK(parse({"undo", "--table", "t", "--since", "1h"}));
    CHECK_FALSE(parse({"history", "t"}));
    CHECK_FALSE(parse({"log", "--database", "shop"}));
    CHECK(parse({"history", "t", "--key", "a=1", "--from", "file:///c", "--key-file", "/k"}));
}

TEST_CASE("CSV is for lists of the row journal, and refused by name elsewhere") {
    for (std::vector<std::string> words : {std::vector<std::string>{"log", "--table", "t"},
                                           {"changes", "t"},
                                           {"show", "xid:7"},
                                           {"history", "t", "--key", "a=1"},
                                           {"rows", "t", "--at", "latest"},
                                           {"extract", "t", "--at", "latest"}}) {
        words.insert(words.end(), {"-o", "csv"});
        CHECK_MESSAGE(parse(words), words.front());
    }
    for (std::vector<std::string> words : {std::vector<std::string>{"log"},
                                           {"status"},
                                           {"info"},
                                           {"version"},
                                           {"follow"},
                                           {"undo", "xid:7"}}) {
        words.insert(words.end(), {"-o", "csv"});
        CHECK(message_of(words).find(words.front() + " does not answer in CSV") == 0);
    }
    CHECK_FALSE(parse({"extract", "t", "--at", "latest", "-o", "json"}));
    CHECK_FALSE(parse({"follow", "-o", "json"}));
}

}  // namespace
}  // namespace walvault::agent
