#include "agent/config.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/config_keys.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

class Directory {
public:
    Directory() {
        std::string pattern = std::filesystem::temp_directory_path() / "walvault-config-XXXXXX";
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    ~Directory() { std::filesystem::remove_all(path_); }
    std::string write(const std::string& name, const std::string& text) const {
        std::filesystem::path file = std::filesystem::path(path_) / name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file, std::ios::binary) << text;
        return file;
    }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

const std::string kLeast =
    "[server.main]\nconninfo = \"host=/tmp user=w\"\n"
    "[repo.primary]\nurl = \"file:///srv/repo/\"\n[encryption]\nkey = \"file:/etc/k\"\n";

Result<Config> load(const std::string& text,
                    const std::map<std::string, std::string>& environment = {}) {
    Directory directory;
    return load_config(posix_file_system(), directory.write("walvault.toml", text), environment);
}

std::string message_of(const std::string& text,
                       const std::map<std::string, std::string>& environment = {}) {
    auto config = load(text, environment);
    REQUIRE_FALSE(config);
    CHECK(config.error().code == Errc::invalid_argument);
    return config.error().message;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("The least configuration gets every default") {
    auto config = load(kLeast);
    REQUIRE(config);
    const ServerConfig& server = config->servers.at(0);
    CHECK(server.name == "main");
    CHECK(server.slot == "walvault");
    CHECK(server.flush_interval == 200ms);
    CHECK(server.backup.every == 24h);
    CHECK(config->repo.root == "/srv/repo");
    CHECK(config->web.socket == "/srv/repo/control.sock");
    CHECK(config->web.port == 9858);
    CHECK(config->key_path == "/etc/k");
}

TEST_CASE("Retention is off until a window is set; its rules are a list of texts") {
    CHECK(load(kLeast)->repo.retention.window == 0s);
    const std::string repo = "url = \"file:///srv/repo/\"\n";
    auto with = [&](const std::string& lines) {
        std::string text = kLeast;
        return text.replace(text.find(repo), repo.size(), repo + lines);
    };
    auto config =
        load(with("window = \"14d\"\nthen = [\"daily x 30\", \"weekly x 12\"]\n"
                  "protect_min = 3\nexpire_grace = \"1h\"\n"));
    REQUIRE_MESSAGE(config, config.error().message);
    const storage::RetentionRules& rules = config->repo.retention;
    CHECK(rules.window == 14 * 24h);
    REQUIRE(rules.then.size() == 2);
    CHECK(rules.then[0].unit == storage::RetentionPeriods::Unit::day);
    CHECK(rules.then[1].unit == storage::RetentionPeriods::Unit::week);
    CHECK(rules.then[1].count == 12);
    CHECK(rules.protect_min == 3);
    CHECK(config->repo.expire_grace == 1h);
    CHECK(contains(message_of(with("then = \"daily x 30\"\n")), "list of texts"));
    CHECK(contains(message_of(with("then = [\"hourly x 3\"]\n")), "hourly x 3"));
    CHECK(contains(message_of(with("then = [\"daily x 0\"]\n")), "whole number"));
    CHECK(contains(message_of(with("protect_min = 0\n")), "protect_min"));
    CHECK(contains(message_of(with("window = \"soon\"\n")), "window"));
    CHECK(contains(message_of(with("evict_below = \"10%\"\n")), "no copy is configured"));
    CHECK(contains(message_of(with("evict_below = \"10\"\n")), "percentage"));
}

TEST_CASE("The example sets every key to its default and is accepted") {
    auto least = load(kLeast);
    REQUIRE(load(example_config()));
    CHECK(load(example_config())->tiers.empty());
    // What a second copy would need stands there as comments.
    std::string text = example_config();
    std::vector<std::string> lines{"[repo.second]"};
    for (const ConfigKey& key : config_keys())
        if (key.set_tier != nullptr)
            lines.push_back(std::string(key.pattern.substr(key.pattern.rfind('.') + 1)) + " = ");
    const std::size_t table = text.find("\n# [repo.second]");
    for (const std::string& line : lines) {
        const std::size_t at = text.find("\n# " + line, table);
        REQUIRE_MESSAGE(at != std::string::npos, line);
        text.erase(at + 1, 2);
    }
    const std::size_t classes = text.find("\n# [class.sensitive]");
    for (const std::string line : {"[class.sensitive]", "tables = "}) {
        const std::size_t at = text.find("\n# " + line, classes);
        REQUIRE_MESSAGE(at != std::string::npos, line);
        text.erase(at + 1, 2);
    }
    auto example = load(text);
    REQUIRE(least);
    REQUIRE_MESSAGE(example, example.error().message);
    for (const ConfigKey& key : config_keys()) {
        bool given = false;
        for (const auto& origin : example->origins)
            given = given || (find_config_key(origin.key) == &key && origin.origin != "default");
        CHECK_MESSAGE(given, key.pattern);
        if (key.example.empty()) CHECK(contains(example_config(), std::string(key.fallback)));
    }
    CHECK(example->servers[0].slot_limit_bytes == least->servers[0].slot_limit_bytes);
    CHECK(example->servers[0].backup.max_rate_bytes == 0);
    CHECK(example->repo.pack_bytes == least->repo.pack_bytes);
    CHECK(example->repo.reserve_ratio == doctest::Approx(least->repo.reserve_ratio));
    CHECK(example->web.port == least->web.port);
}

TEST_CASE("Every default written in the table of keys is the default in force") {
    auto least = load(kLeast);
    REQUIRE(least);
    for (const ConfigKey& key : config_keys()) {
        if (key.required || key.fallback.empty()) continue;
        if (key.set_tier != nullptr) {
            TierConfig tier;
            REQUIRE_MESSAGE(key.set_tier(tier, std::string(key.fallback)), key.pattern);
            CHECK(tier.offload_interval == TierConfig().offload_interval);
            CHECK(tier.bucket == TierConfig().bucket);
            continue;
        }
        Config config = *least;
        auto set = key.set(config, &config.servers[0], std::string(key.fallback));
        REQUIRE_MESSAGE(set, key.pattern);
        const ServerConfig &a = config.servers[0], &b = least->servers[0];
        CHECK(std::tie(a.slot, a.rpo_target, a.slot_limit_bytes, a.flush_interval, a.backup.every,
                       a.backup.fast_checkpoint, a.backup.max_rate_bytes) ==
              std::tie(b.slot, b.rpo_target, b.slot_limit_bytes, b.flush_interval, b.backup.every,
                       b.backup.fast_checkpoint, b.backup.max_rate_bytes));
        CHECK(std::tie(a.slot_give_up_bytes, a.wal_fetch, a.wal_fetch_timeout) ==
              std::tie(b.slot_give_up_bytes, b.wal_fetch, b.wal_fetch_timeout));
        CHECK(std::tie(config.repo.reserve_ratio, config.repo.wal_level, config.repo.base_level,
                       config.repo.pack_bytes, config.web.port, config.log_level,
                       config.log_format) == std::tie(least->repo.reserve_ratio,
                                                      least->repo.wal_level, least->repo.base_level,
                                                      least->repo.pack_bytes, least->web.port,
                                                      least->log_level, least->log_format));
    }
}

TEST_CASE("An unknown key is named with its place and the nearest known one") {
    std::string message = message_of(kLeast + "[server.main.backup]\nevry = \"1h\"\n");
    CHECK(contains(message,
                   "walvault.toml:8:1: unknown key \"evry\" in [server.main.backup], did you mean "
                   "\"every\"?"));
    CHECK(
        contains(message_of(kLeast + "[servr.main]\nslot = \"a\"\n"), "did you mean \"server\"?"));
    CHECK(contains(message_of(kLeast + "[repo.offsite]\nurI = \"file:///x\"\n"),
                   "unknown key \"urI\" in [repo.offsite], did you mean \"url\"?"));
    CHECK(contains(message_of("nonsense = 1\n" + kLeast), "unknown key \"nonsense\""));
}

TEST_CASE("Wrong syntax, types, values and duplicates are refused with their place") {
    CHECK(contains(message_of("[server.main\n"), "walvault.toml:1:"));
    CHECK(contains(message_of(kLeast + "[repo.primary]\nreserve = \"1%\"\n"), "walvault.toml:7:"));
    CHECK(contains(message_of(kLeast + "[log]\nlevel = 3\n"), "must be text in quotes"));
    CHECK(contains(message_of(kLeast + "[log]\nlevel = \"loud\"\n"),
                   ":8: log.level: \"loud\" is not a level"));
    CHECK(contains(message_of("config_version = 2\n" + kLeast), "config_version 2 is not known"));
    CHECK(contains(message_of(kLeast + "[server.\"a b\"]\nconninfo=\"x\"\n"),
                   "is not a server's name"));
    for (const char* name : {"index", "keyring", "ledger", "repository", "lock", "writer"})
        CHECK(contains(message_of(kLeast + "[server." + name + "]\nconninfo=\"x\"\n"),
                       "cannot be a server's name"));
    CHECK(
        contains(message_of(kLeast + "[server.b]\nslot=\"x\"\n"), "server.b.conninfo is missing"));
}

TEST_CASE("Bounds hold at both ends") {
    auto main = [](const std::string& line) {
        return "[server.main]\n" + line + "\n" + kLeast.substr(kLeast.find('\n') + 1);
    };
    CHECK(load(main("flush_interval = \"10ms\"")));
    CHECK_FALSE(load(main("flush_interval = \"9ms\"")));
    CHECK(load(main("flush_interval = \"10s\"")));
    CHECK_FALSE(load(main("flush_interval = \"10001ms\"")));
    CHECK_FALSE(load(main("slot = \"Big\"")));
    CHECK_FALSE(load(main("time_zone = \"Mars/Olympus\"")));
    CHECK_FALSE(load(kLeast + "[server.main.backup]\nmax_rate = \"2GiB/s\"\n"));
    CHECK(load(kLeast + "[server.main.backup]\nevery = \"off\"\n")->servers[0].backup.every == 0s);
}

TEST_CASE("A slot is given up only at a size that is named, and not before the warning") {
    auto with = [](const std::string& lines) {
        return std::string(kLeast).replace(kLeast.find("[repo"), 0, lines);
    };
    CHECK_FALSE(load(kLeast)->servers.at(0).slot_give_up_bytes);
    CHECK_FALSE(load(with("slot_give_up = \"off\"\n"))->servers.at(0).slot_give_up_bytes);
    CHECK(load(with("slot_give_up = \"64GiB\"\n"))->servers.at(0).slot_give_up_bytes == 64ull
                                                                                            << 30);
    CHECK(load(with("slot_give_up = \"20GiB\"\n")));
    const std::string early = message_of(with("slot_give_up = \"19GiB\"\n"));
    CHECK(contains(early, "server.main.slot_give_up is 19 GiB, below slot_limit, 20 GiB"));
    CHECK(contains(message_of(with("slot_give_up = \"1MiB\"\n")), "slot_give_up"));
}

TEST_CASE("wal_fetch is a command in words") {
    auto with = [](const std::string& value) {
        return std::string(kLeast).replace(kLeast.find("[repo"), 0, "wal_fetch = " + value + "\n");
    };
    CHECK(load(kLeast)->servers.at(0).wal_fetch.empty());
    CHECK(load(with("\"cp '/a b/%f' %p\""))->servers.at(0).wal_fetch ==
          std::vector<std::string>{"cp", "/a b/%f", "%p"});
    CHECK(contains(message_of(with("\"cp /a/%f\"")), "%p"));
    CHECK(contains(message_of(with("\"cp /a/%f %p")), "walvault.toml:3"));
}

TEST_CASE("A key or a password in the configuration is refused and not repeated") {
    std::string secret = "walvault-key-1 c2VjcmV0c2VjcmV0c2VjcmV0";
    std::string message = message_of(
        "[server.main]\nconninfo=\"host=x\"\n[repo.primary]\nurl=\"file:///"
        "r\"\n[encryption]\nkey=\"" +
        secret + "\"\n");
    CHECK_FALSE(contains(message, "c2Vj"));
    CHECK(holds_password("host=x password=hunter2"));
    CHECK(holds_password("host=x password = 'a b'"));
    CHECK(holds_password("postgresql://u:hunter2@h/db"));
    CHECK(holds_password("postgresql://h/db?user=u&password=x"));
    CHECK_FALSE(holds_password("postgresql://u@h:5432/db?passfile=/x"));
    CHECK_FALSE(holds_password("host=x passfile=/home/p application_name=password"));
    CHECK_FALSE(contains(
        message_of(kLeast, {{"WALVAULT_SERVER__MAIN__CONNINFO", "password=hunter2"}}), "hunter2"));
}

TEST_CASE("A variable wins over conf.d, conf.d over the file, and each origin is kept") {
    Directory directory;
    std::string path = directory.write("walvault.toml", kLeast + "[log]\nlevel = \"debug\"\n");
    directory.write("conf.d/10-a.toml", "[log]\nlevel = \"warn\"\nformat = \"json\"\n");
    directory.write("conf.d/20-b.toml", "[log]\nlevel = \"error\"\n");
    directory.write("conf.d/30-c.toml.bak", "broken");
    auto config = load_config(posix_file_system(), path,
                              {{"WALVAULT_SERVER__MAIN__SLOT", "other"},
                               {"WALVAULT_SERVR__X", "1"},
                               {"WALVAULT_CONFIG", path},
                               {"UNRELATED", "1"}});
    REQUIRE_MESSAGE(config, config.error().message);
    CHECK(config->log_level == log::Level::error);
    CHECK(config->log_format == log::Format::json);
    CHECK(config->servers[0].slot == "other");
    REQUIRE(config->warnings.size() == 1);
    CHECK(contains(config->warnings[0], "WALVAULT_SERVR__X"));
    std::map<std::string, std::string> origins;
    for (const auto& row : config->origins)
        origins[row.key] = row.origin;
    CHECK(origins["log.level"] == directory.path() + "/conf.d/20-b.toml:2");
    CHECK(origins["log.format"] == directory.path() + "/conf.d/10-a.toml:3");
    CHECK(origins["server.main.slot"] == "WALVAULT_SERVER__MAIN__SLOT");
    CHECK(origins["server.main.rpo_target"] == "default");
}

TEST_CASE("A credential is in the service's directory, or beside the file outside of a service") {
    Directory directory;
    std::string text = kLeast;
    text.replace(text.find("file:/etc/k"), 11, "credential:repo.key");
    std::string path = directory.write("walvault.toml", text);
    CHECK(load_config(posix_file_system(), path, {{"CREDENTIALS_DIRECTORY", "/run/c"}})->key_path ==
          "/run/c/repo.key");
    CHECK(load_config(posix_file_system(), path, {})->key_path == directory.path() + "/repo.key");
}

TEST_CASE("Only loopback is listened on, and the refusal says why") {
    auto listen = [](const std::string& value) {
        return load(kLeast + "[web]\nlisten = \"" + value + "\"\n");
    };
    auto both = listen("unix:/run/w.sock, [::1]:80");
    REQUIRE(both);
    CHECK(both->web.socket == "/run/w.sock");
    CHECK(both->web.address == "::1");
    CHECK(both->web.port == 80);
    auto off = listen("off");
    REQUIRE(off);
    CHECK(off->web.port == 0);
    CHECK(off->web.socket == "/srv/repo/control.sock");
    auto open = listen("0.0.0.0:9858");
    REQUIRE_FALSE(open);
    CHECK(contains(open.error().message, "loopback only"));
    CHECK_FALSE(listen(""));
    CHECK_FALSE(listen("127.0.0.1:0"));
    CHECK_FALSE(listen("127.0.0.1:99999"));
    CHECK_FALSE(listen("unix:relative"));
}

TEST_CASE("A repository is a local directory by its absolute path") {
    for (std::string url :
         {"s3://b/p", "file://relative", "file:///", "file:///a/../b", "/plain"}) {
        std::string text = kLeast;
        text.replace(text.find("file:///srv/repo/"), 17, url);
        CHECK_MESSAGE(!load(text), url);
    }
}

TEST_CASE("A second copy may be a bucket, with what belongs to it as keys of their own") {
    const std::string store =
        "[repo.cloud]\nurl = \"s3://backups/pg/main/\"\nregion = \"eu-west-1\"\n"
        "endpoint = \"https://store.example:9000\"\nca_file = \"/etc/ca.pem\"\n"
        "credentials = \"file:/etc/s3.key\"\nstorage_class_wal = \"STANDARD_IA\"\n"
        "sse = \"aws:kms:alias/x\"\ntags = [\"team=db\", \"env=prod\"]\n"
        "object_lock = \"compliance 30d\"\nbandwidth = \"20MiB/s\"\nconcurrency = \"8\"\n";
    auto config = load(kLeast + store);
    REQUIRE_MESSAGE(config, config.error().message);
    const storage::TierPlace place = config->tiers.at(0).place();
    CHECK(place.url == "s3://backups/pg/main");
    REQUIRE(place.bucket);
    CHECK(place.bucket->bucket == "backups");
    CHECK(place.bucket->prefix == "pg/main");
    CHECK(place.bucket->region == "eu-west-1");
    CHECK(place.bucket->endpoint == "https://store.example:9000");
    CHECK(place.bucket->credentials == "file:/etc/s3.key");
    CHECK(place.bucket->storage_class_wal == "STANDARD_IA");
    CHECK(place.bucket->sse == "aws:kms:alias/x");
    CHECK(place.bucket->tags == storage::S3Pairs{{"team", "db"}, {"env", "prod"}});
    CHECK(place.bucket->object_lock == "COMPLIANCE");
    CHECK(place.bucket->object_lock_for == 30 * 24h);
    CHECK(place.bucket->bandwidth == 20u << 20);
    CHECK(place.bucket->concurrency == 8);
    CHECK_FALSE(load(kLeast + "[repo.nas]\nurl = \"file:///m\"\n")->tiers.at(0).place().bucket);

    auto message = [](const std::string& lines) { return message_of(kLeast + lines); };
    const std::string bucket = "[repo.c]\nurl = \"s3://backups/x\"\n";
    CHECK(contains(message("[repo.c]\nurl = \"s3://backups?region=x\"\n"), "keys of their own"));
    CHECK(contains(message("[repo.c]\nurl = \"file:///m\"\nregion = \"x\"\n"),
                   "repo.c.region is for a url of s3:// alone"));
    CHECK(contains(message(bucket + "[repo.d]\nurl = \"s3://backups/x/y\"\n"), "inside of it"));
    CHECK(load(kLeast + bucket + "[repo.d]\nurl = \"s3://backups/xy\"\n"));
    CHECK(load(kLeast + bucket +
               "[repo.d]\nurl = \"s3://backups/x\"\nendpoint = \"https://other\"\n"));
    for (std::string line :
         {"region = \"a b\"", "endpoint = \"store\"", "style = \"both\"", "ca_file = \"ca\"",
          "credentials = \"SeCrEt\"", "credentials = \"imds:http://evil\"", "sse = \"SeCrEt\"",
          "tags = [\"x\"]", "object_lock = \"compliance\"", "object_lock = \"governance 0d\"",
          "bandwidth = \"20MB/s\"", "bandwidth = \"1KiB/s\"", "concurrency = \"0\"",
          "concurrency = \"33\"", "storage_class = \"A B\""}) {
        const std::string said = message(bucket + line + "\n");
        CHECK_MESSAGE(contains(said, "repo.c." + line.substr(0, line.find(' '))), line, said);
        CHECK_FALSE_MESSAGE(contains(said, "SeCrEt"), line);
    }
    CHECK(contains(message("[repo.c]\nurl = \"s3://k:SeCrEt@x/y\"\n"), "repo.c.url"));
    CHECK_FALSE(contains(message("[repo.c]\nurl = \"s3://k:SeCrEt@x/y\"\n"), "SeCrEt"));
    CHECK(contains(message("[repo.c]\nurl = \"s3://my.bucket\"\nstyle = \"host\"\n"), "style"));
}

TEST_CASE("A second copy is a table of its own, beside the primary one and not inside of it") {
    CHECK(load(kLeast)->tiers.empty());
    auto both = load(kLeast +
                     "[repo.nas]\nurl = \"file:///mnt/nas/\"\noffload_interval = \"1s\"\n"
                     "[repo.second]\nurl = \"file:///mnt/b\"\n");
    REQUIRE_MESSAGE(both, both.error().message);
    REQUIRE(both->tiers.size() == 2);
    CHECK(both->tier("nas").value()->url == "file:///mnt/nas");
    CHECK(both->tier("nas").value()->offload_interval == 1s);
    CHECK(both->tier("second").value()->offload_interval == 5s);
    CHECK(contains(both->tier("nsa").error().message, "did you mean \"nas\"?"));
    CHECK(contains(both->tier("primary").error().hint, "nas, second"));
    CHECK(both->repo.root == "/srv/repo");
    auto message = [](const std::string& lines) { return message_of(kLeast + lines); };
    CHECK(contains(message("[repo.nas]\noffload_interval = \"1s\"\n"), "repo.nas.url is missing"));
    CHECK(contains(message("[repo.nas]\nurl = \"file:///srv/repo/copy\"\n"), "inside of it"));
    CHECK(contains(message("[repo.nas]\nurl = \"file:///srv\"\n"), "inside of it"));
    CHECK(contains(message("[repo.a]\nurl = \"file:///m\"\n[repo.b]\nurl = \"file:///m\"\n"),
                   "repo.a"));
    CHECK(contains(message("[repo.nas]\nurl = \"file:///m\"\noffload_interval = \"10ms\"\n"),
                   "between"));
    CHECK(contains(message("[repo.nas]\nurl = \"file:///m\"\nwal_level = 3\n"), "unknown key"));
    CHECK(contains(message("[repo.\"N A S\"]\nurl = \"file:///m\"\n"), "not a repository's name"));
    auto primary = message_of(
        "[server.main]\nconninfo = \"host=a\"\n[repo.primary]\nurl = \"file:///r\"\n"
        "offload_interval = \"1s\"\n[encryption]\nkey = \"file:/k\"\n");
    CHECK(contains(primary, "unknown key \"offload_interval\""));
    auto variable = load(kLeast, {{"WALVAULT_REPO__NAS__URL", "file:///mnt/nas"}});
    REQUIRE(variable);
    CHECK(variable->tiers.at(0).name == "nas");
}

TEST_CASE("Sizes and durations are read exactly or refused") {
    CHECK(parse_size("20GiB").value() == 20ull << 30);
    CHECK(parse_size("0B").value() == 0);
    for (const char* text : {"", "20", "20GB", "20 Kb", "GiB", "-1MiB", "1.5GiB",
                             "99999999999999999999B", "9999999TiB", "1MiBx"})
        CHECK_MESSAGE(!parse_size(text), text);
    CHECK(parse_duration("1h30m").value() == 90min);
    CHECK(parse_duration("14d").value() == 14 * 24h);
    for (const char* text :
         {"", "5", "5 s", "5x", "1h30", "-5s", "99999999999999999999s", "9999999999999w", "s"})
        CHECK_MESSAGE(!parse_duration(text), text);
}

TEST_CASE("A journal is off until a database is named; its patterns are checked") {
    CHECK_FALSE(load(kLeast)->servers.at(0).journal.enabled());
    auto with = [&](const std::string& lines) {
        return kLeast + "[server.main.journal]\ndatabases = [\"app\"]\n" + lines;
    };
    auto config =
        load(with("tables = [\"public.*\", \"!public.sessions\"]\n"
                  "mask = [\"public.users.email\", \"public.users.note=drop\"]\n"
                  "slot_give_up = \"1GiB\"\nstaging = \"64MiB\"\nsnapshots = \"off\"\n"
                  "[class.sensitive]\ntables = [\"*.users\"]\n"));
    REQUIRE(config);
    const JournalConfig& journal = config->servers.at(0).journal;
    CHECK(journal.databases == std::vector<std::string>{"app"});
    CHECK(journal.tables == std::vector<std::string>{"public.*", "!public.sessions"});
    CHECK(journal.masked_columns == std::vector<std::string>{"public.users.email"});
    CHECK(journal.dropped_columns == std::vector<std::string>{"public.users.note"});
    CHECK(journal.slot_give_up_bytes == 1ull << 30);
    CHECK(journal.staging_bytes == 64ull << 20);
    CHECK_FALSE(journal.snapshots);
    REQUIRE(config->classes.size() == 1);
    CHECK(config->classes[0].name == "sensitive");
    CHECK(config->classes[0].tables == std::vector<std::string>{"*.users"});

    CHECK(contains(message_of(with("tables = [\"orders\"]\n")), "orders"));
    CHECK(contains(message_of(with("tables = [\"!.x\"]\n")), "!.x"));
    CHECK(contains(message_of(with("mask = [\"users.email\"]\n")), "is not a column"));
    CHECK(contains(message_of(with("mask = [\"public.users.email=hash\"]\n")), "is not a column"));
    CHECK(contains(message_of(with("slot = \"Journal\"\n")), "is not how a slot's name begins"));
    CHECK(contains(message_of(with("[class.Upper]\ntables = [\"*.users\"]\n")),
                   "is not a class's name"));
    CHECK(contains(message_of(with("[class.sensitive]\n[class.other]\ntable = [\"*.x\"]\n")),
                   "did you mean \"tables\""));
}

TEST_CASE("A server is found by name, or alone without one") {
    auto one = load(kLeast);
    REQUIRE(one);
    CHECK(one->server("").value()->name == "main");
    auto wrong = one->server("mian");
    REQUIRE_FALSE(wrong);
    CHECK(contains(wrong.error().message, "did you mean \"main\"?"));
    auto two = load(kLeast + "[server.b]\nconninfo = \"host=b\"\n");
    REQUIRE(two);
    CHECK_FALSE(two->server(""));
    CHECK(two->server("b").value()->conninfo == "host=b");
}

TEST_CASE("A configuration that is not there is not found") {
    auto missing = load_config(posix_file_system(), "/nonexistent/walvault.toml", {});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::not_found);
}

TEST_CASE("what thawing costs is a table, and what is no price in it is told") {
    auto config = load(kLeast +
                       "[archive]\nspeed = \"bulk\"\ndays = 7\npoll_interval = \"10s\"\n"
                       "egress = \"0.09/GB\"\ncurrency = \"EUR\"\n"
                       "prices = [\"GLACIER standard 0.01/GB 0.05/1000 5h\", "
                       "\"DEEP_ARCHIVE bulk 0.0025/GB 0.025/1000 48h\"]\n");
    REQUIRE(config);
    const ArchiveConfig& archive = config->archive;
    CHECK(archive.thaw.speed == storage::ThawSpeed::bulk);
    CHECK(archive.thaw.days == 7);
    CHECK(archive.poll_interval == 10s);
    CHECK(archive.prices.currency == "EUR");
    CHECK(*archive.prices.egress_per_gb == doctest::Approx(0.09));
    const auto deep = archive.prices.thaws.at({"DEEP_ARCHIVE", storage::ThawSpeed::bulk});
    CHECK(deep.per_gb == doctest::Approx(0.0025));
    CHECK(deep.per_1000_requests == doctest::Approx(0.025));
    CHECK(deep.ready_after == 48h);
    CHECK(load(kLeast)->archive.prices.thaws.empty());
    for (const char* wrong :
         {"prices = [\"GLACIER standard 0.01/GB 0.05/1000\"]",
          "prices = [\"GLACIER fast 0.01/GB 0.05/1000 5h\"]",
          "prices = [\"GLACIER standard 0.01 0.05/1000 5h\"]",
          "prices = [\"GLACIER standard -1/GB 0.05/1000 5h\"]",
          "prices = [\"GLACIER standard x/GB 0.05/1000 5h\"]",
          "prices = [\"GLACIER standard 0.01/GB 0.05/1000 5\"]", "speed = \"Standard\"", "days = 0",
          "egress = \"0.09\"", "poll_interval = \"1ms\"", "currency = \"\""})
        message_of(kLeast + "[archive]\n" + wrong + "\n");
}

TEST_CASE("the prices of a file count without the rest of it") {
    Directory directory;
    auto archive = load_archive_config(
        posix_file_system(),
        directory.write("prices.toml", "[archive]\ndays = 9\n[log]\nlevel = \"debug\"\n"));
    REQUIRE(archive);
    CHECK(archive->thaw.days == 9);
    CHECK_FALSE(load_archive_config(posix_file_system(),
                                    directory.write("wrong.toml", "[archive]\nday = 9\n")));
    CHECK(load_archive_config(posix_file_system(), "/nowhere/x").error().code == Errc::not_found);
}

}  // namespace
}  // namespace walvault::agent
