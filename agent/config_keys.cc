#include "agent/config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "agent/config_archive.h"
#include "agent/fetch_command.h"
#include "agent/render.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

tl::unexpected<Error> wrong(std::string message, std::string hint = {}) {
    return fail(Errc::invalid_argument, std::move(message), std::move(hint));
}

Result<int> parse_integer(const std::string& text, int least, int most) {
    int number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number < least || number > most)
        return wrong(fmt::format("\"{}\" is not a whole number from {} to {}", text, least, most));
    return number;
}

Result<milliseconds> duration_between(const std::string& text, milliseconds least,
                                      milliseconds most) {
    WV_TRY(milliseconds value, parse_duration(text));
    if (value < least || value > most)
        return wrong(fmt::format("\"{}\" is not between {} and {}", text, format_duration(least),
                                 format_duration(most)));
    return value;
}

Result<std::uint64_t> size_between(const std::string& text, std::uint64_t least,
                                   std::uint64_t most) {
    WV_TRY(std::uint64_t value, parse_size(text));
    if (value < least || value > most)
        return wrong(fmt::format("\"{}\" is not between {} and {}", text, format_size(least),
                                 format_size(most)));
    return value;
}

Result<> set_version(Config&, ServerConfig*, const std::string& text) {
    if (text == "1") return {};
    return wrong(fmt::format("config_version {} is not known; this build reads version 1", text));
}

Result<> set_conninfo(Config&, ServerConfig* server, const std::string& text) {
    if (text.empty())
        return wrong("the connection string is empty",
                     "for example host=/run/postgresql user=postgres");
    if (holds_password(text))
        return wrong("the connection string holds a password",
                     "use peer authentication, passfile=/path, a .pgpass file or a service file");
    server->conninfo = text;
    return {};
}

Result<> set_acknowledge(Config&, ServerConfig* server, const std::string& text) {
    if (text != "flushed" && text != "offloaded")
        return wrong(fmt::format("\"{}\" is neither flushed nor offloaded", printable(text)));
    server->acknowledge = text == "offloaded" ? Acknowledge::offloaded : Acknowledge::flushed;
    return {};
}

Result<> set_standby_slots(Config&, ServerConfig* server, const std::string& text) {
    if (text != "on" && text != "off")
        return wrong(fmt::format("\"{}\" is neither on nor off", printable(text)));
    server->standby_slots = text == "on";
    return {};
}

Result<> set_slot(Config&, ServerConfig* server, const std::string& text) {
    bool good =
        !text.empty() && text.size() <= 63 &&
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
    if (!good)
        return wrong(
            fmt::format("\"{}\" is not a slot name: 1 to 63 of a-z, 0-9 and _", printable(text)));
    server->slot = text;
    return {};
}

Result<> set_time_zone(Config&, ServerConfig* server, const std::string& text) {
    if (!text.empty() && !is_time_zone(text))
        return wrong(fmt::format("\"{}\" is not a name of the time zone database", printable(text)),
                     "for example Europe/Berlin; UTC is Etc/UTC");
    server->time_zone = text;
    return {};
}

Result<> set_rpo_target(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->rpo_target, duration_between(text, seconds(1), hours(24)));
    return {};
}

Result<> set_slot_limit(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->slot_limit_bytes, size_between(text, 64ull << 20, 1ull << 50));
    return {};
}

Result<> set_slot_give_up(Config&, ServerConfig* server, const std::string& text) {
    server->slot_give_up_bytes.reset();
    if (text == "off") return {};
    WV_TRY(server->slot_give_up_bytes, size_between(text, 64ull << 20, 1ull << 50));
    return {};
}

Result<> set_wal_fetch(Config&, ServerConfig* server, const std::string& text) {
    server->wal_fetch.clear();
    if (text.empty()) return {};
    WV_TRY(server->wal_fetch, parse_fetch_command(text));
    return {};
}

Result<> set_wal_fetch_timeout(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->wal_fetch_timeout, duration_between(text, seconds(1), hours(1)));
    return {};
}

Result<> set_flush_interval(Config&, ServerConfig* server, const std::string& text) {
    WV_TRY(server->flush_interval, duration_between(text, milliseconds(10), seconds(10)));
    return {};
}

Result<> set_every(Config&, ServerConfig* server, const std::string& text) {
    if (text == "off") {
        server->backup.every = seconds(0);
        return {};
    }
    WV_TRY(milliseconds value, duration_between(text, seconds(60), hours(24 * 365)));
    server->backup.every = std::chrono::duration_cast<seconds>(value);
    return {};
}

Result<> set_checkpoint(Config&, ServerConfig* server, const std::string& text) {
    if (text != "fast" && text != "spread")
        return wrong(fmt::format("\"{}\" is neither \"fast\" nor \"spread\"", printable(text)));
    server->backup.fast_checkpoint = text == "fast";
    return {};
}

Result<> set_max_rate(Config&, ServerConfig* server, const std::string& text) {
    if (text == "off") {
        server->backup.max_rate_bytes = 0;
        return {};
    }
    if (!text.ends_with("/s"))
        return wrong(fmt::format("\"{}\" is not a rate like 200MiB/s", printable(text)));
    // PostgreSQL's own bounds for MAX_RATE.
    WV_TRY(server->backup.max_rate_bytes,
           size_between(text.substr(0, text.size() - 2), 32ull << 10, 1ull << 30));
    return {};
}

Result<std::string> directory_in(const std::string& url) {
    auto root = storage::directory_of_url(url);
    if (root) return root;
    return wrong(fmt::format("\"{}\": {}", printable(url), root.error().message),
                 root.error().hint);
}

Result<> set_url(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(config.repo.root, directory_in(text));
    return {};
}

Result<> set_tier_url(TierConfig& tier, const std::string& text) {
    tier.is_bucket = text.starts_with("s3://");
    if (!tier.is_bucket && text.starts_with("file://")) {
        WV_TRY(std::string root, directory_in(text));
        tier.url = "file://" + root;
        return {};
    }
    // What was written is not repeated: somebody may have put keys into it.
    if (text.find('?') != std::string::npos)
        return wrong("the options of a bucket are keys of their own here",
                     "url = \"s3://bucket/prefix\", region = \"…\", endpoint = \"…\"");
    WV_TRY(storage::TierPlace place, storage::parse_tier_url(text));
    tier.url = place.url;
    tier.bucket.bucket = place.bucket->bucket;
    tier.bucket.prefix = place.bucket->prefix;
    return {};
}

Result<> set_bucket_option(TierConfig& tier, std::string_view name, const std::string& text) {
    // Empty is what nothing was said of.
    if (text.empty()) return {};
    return storage::set_s3_option(tier.bucket, name, text);
}

Result<> set_offload_interval(TierConfig& tier, const std::string& text) {
    WV_TRY(tier.offload_interval, duration_between(text, seconds(1), hours(1)));
    return {};
}

Result<> set_reserve(Config& config, ServerConfig*, const std::string& text) {
    if (!text.ends_with("%"))
        return wrong(fmt::format("\"{}\" is not a percentage like 10%", printable(text)));
    WV_TRY(int percent, parse_integer(text.substr(0, text.size() - 1), 0, 90));
    config.repo.reserve_ratio = percent / 100.0;
    return {};
}

Result<> set_evict_below(Config& config, ServerConfig*, const std::string& text) {
    config.repo.evict_below_ratio.reset();
    if (text == "off") return {};
    if (!text.ends_with("%"))
        return wrong(
            fmt::format("\"{}\" is neither off nor a percentage like 10%", printable(text)));
    WV_TRY(int percent, parse_integer(text.substr(0, text.size() - 1), 1, 95));
    config.repo.evict_below_ratio = percent / 100.0;
    return {};
}

Result<> set_wal_level(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(config.repo.wal_level, parse_integer(text, 1, 19));
    return {};
}

Result<> set_base_level(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(config.repo.base_level, parse_integer(text, 1, 19));
    return {};
}

Result<> set_pack_size(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(config.repo.pack_bytes, size_between(text, 1ull << 20, 1ull << 30));
    return {};
}

Result<> parse_window(storage::RetentionRules& rules, const std::string& text) {
    rules.window = seconds(0);
    if (text == "off") return {};
    WV_TRY(milliseconds value, duration_between(text, seconds(1), hours(24 * 3660)));
    rules.window = std::chrono::duration_cast<seconds>(value);
    return {};
}

// "daily x 30"
Result<storage::RetentionPeriods> parse_periods(const std::string& text) {
    using Unit = storage::RetentionPeriods::Unit;
    constexpr std::array kUnits{std::pair("daily x ", Unit::day),
                                std::pair("weekly x ", Unit::week),
                                std::pair("monthly x ", Unit::month)};
    for (const auto& [name, unit] : kUnits) {
        if (!text.starts_with(name)) continue;
        WV_TRY(int count, parse_integer(text.substr(std::string_view(name).size()), 1, 10'000));
        return storage::RetentionPeriods{unit, static_cast<unsigned>(count)};
    }
    return wrong(
        fmt::format("\"{}\" is none of daily, weekly and monthly x NUMBER", printable(text)),
        "for example [\"daily x 30\", \"weekly x 12\", \"monthly x 84\"]");
}

Result<> parse_then(storage::RetentionRules& rules, const std::string& text) {
    rules.then.clear();
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t comma = std::min(text.find(", ", from), text.size());
        WV_TRY(auto periods, parse_periods(text.substr(from, comma - from)));
        rules.then.push_back(periods);
        from = comma + 2;
    }
    return {};
}

Result<> parse_protect_min(storage::RetentionRules& rules, const std::string& text) {
    WV_TRY(int count, parse_integer(text, 1, 10'000));
    rules.protect_min = static_cast<unsigned>(count);
    return {};
}

// Of [repo.primary], and of a tier.
template <Result<> (*parse)(storage::RetentionRules&, const std::string&)>
Result<> set_rule(Config& config, ServerConfig*, const std::string& text) {
    return parse(config.repo.retention, text);
}
template <Result<> (*parse)(storage::RetentionRules&, const std::string&)>
Result<> set_tier_rule(TierConfig& tier, const std::string& text) {
    return parse(tier.retention, text);
}

Result<> set_expire_grace(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(milliseconds value, duration_between(text, seconds(0), hours(24 * 366)));
    config.repo.expire_grace = std::chrono::duration_cast<seconds>(value);
    return {};
}
Result<> set_tier_expire_grace(TierConfig& tier, const std::string& text) {
    WV_TRY(milliseconds value, duration_between(text, seconds(0), hours(24 * 366)));
    tier.expire_grace = std::chrono::duration_cast<seconds>(value);
    return {};
}

Result<> set_key(Config& config, ServerConfig*, const std::string& text) {
    bool credential = text.starts_with("credential:");
    std::string name = credential                  ? text.substr(11)
                       : text.starts_with("file:") ? text.substr(5)
                                                   : text;
    bool plain_name =
        !name.empty() && name.find('/') == std::string::npos && name != "." && name != "..";
    bool absolute = name.size() > 1 && name.front() == '/';
    // What was written is not repeated: it may be the key itself.
    if (credential ? !plain_name : !absolute)
        return wrong(
            "the key is not named by where it is; a key itself never stands in the configuration",
            "key = \"credential:repo.key\" or \"file:/etc/walvault/repo.key\"");
    config.key_path = credential ? text : name;
    return {};
}

Result<> set_listener(Config& config, const std::string& item) {
    if (item.starts_with("unix:")) {
        std::string path = item.substr(5);
        // sun_path has 108 bytes with its NUL.
        if (path.size() < 2 || path.front() != '/' || path.size() > 107)
            return wrong(fmt::format("\"{}\" is not a socket's absolute path of at most 107 bytes",
                                     printable(item)));
        config.web.socket = path;
        return {};
    }
    std::size_t colon = item.rfind(':');
    if (colon == std::string::npos)
        return wrong(fmt::format("\"{}\" is neither unix:PATH nor ADDRESS:PORT", printable(item)));
    WV_TRY(int port, parse_integer(item.substr(colon + 1), 1, 65535));
    std::string host = item.substr(0, colon);
    if (host != "127.0.0.1" && host != "[::1]" && host != "localhost")
        return wrong(
            fmt::format(
                "the agent listens on loopback only, not on \"{}\": its pages tell what is in "
                "the database and ask for no password",
                printable(host)),
            "use 127.0.0.1 or [::1], and a reverse proxy with authentication in front of it");
    config.web.address = host == "[::1]" ? "::1" : "127.0.0.1";
    config.web.port = static_cast<unsigned>(port);
    return {};
}

Result<> set_listen(Config& config, ServerConfig*, const std::string& text) {
    config.web.port = 0;
    if (text == "off") return {};
    for (std::size_t from = 0; from <= text.size();) {
        std::size_t comma = std::min(text.find(',', from), text.size());
        std::size_t first = text.find_first_not_of(" \t", from);
        std::string item = first < comma ? text.substr(first, comma - first) : "";
        item.erase(item.find_last_not_of(" \t") + 1);
        WV_CHECK(set_listener(config, item));
        from = comma + 1;
    }
    return {};
}

Result<> set_log_level(Config& config, ServerConfig*, const std::string& text) {
    if (!log::parse_level(text, config.log_level))
        return wrong(fmt::format("\"{}\" is not a level: trace, debug, info, warn, error, off",
                                 printable(text)));
    return {};
}

Result<> set_log_format(Config& config, ServerConfig*, const std::string& text) {
    if (text != "auto" && text != "text" && text != "json")
        return wrong(fmt::format("\"{}\" is none of auto, text, json", printable(text)));
    config.log_format.reset();
    if (text == "text") config.log_format = log::Format::text;
    if (text == "json") config.log_format = log::Format::json;
    return {};
}

constexpr auto kText = ConfigKey::Kind::text;
constexpr auto kInteger = ConfigKey::Kind::integer;
constexpr auto kList = ConfigKey::Kind::list;

constexpr std::array kKeys{
    ConfigKey{"config_version", kInteger, "1", false, "", "1", "The form of this file.",
              set_version},
    ConfigKey{
        "server.*.conninfo", kText, "", true, "host=/run/postgresql user=postgres dbname=postgres",
        "a libpq connection string without a password",
        "How to reach the server, or all servers of a cluster: host=a,b,c "
        "target_session_attrs=read-write. Passwords come from peer, a .pgpass or a service file.",
        set_conninfo},
    ConfigKey{"server.*.slot", kText, "walvault", false, "", "1 to 63 of a-z, 0-9 and _",
              "The physical replication slot: made when missing, dropped only by detach and "
              "slot_give_up.",
              set_slot},
    ConfigKey{"server.*.standby_slots", kText, "on", false, "", "on or off",
              "With several hosts in conninfo: keep the slot on all of them, so that whichever is "
              "promoted has the WAL that is needed next.",
              set_standby_slots},
    ConfigKey{"server.*.time_zone", kText, "", false, "",
              "a name such as Europe/Berlin; empty: TZ, else the system's",
              "The zone of times written without one, as in --to 14:02.", set_time_zone},
    ConfigKey{"server.*.rpo_target", kText, "5s", false, "", "a duration, 1s to 24h",
              "How much a crash may lose. A goal for alerts, exported as a metric.",
              set_rpo_target},
    ConfigKey{"server.*.slot_limit", kText, "20GiB", false, "", "a size, 64MiB to 1024TiB",
              "Alert when the slot holds back more WAL than this on the server's disk.",
              set_slot_limit},
    ConfigKey{"server.*.slot_give_up", kText, "off", false, "", "a size, 64MiB to 1024TiB, or off",
              "Drop the slot, and record a gap, when it holds more than this and no less for a "
              "minute.",
              set_slot_give_up},
    ConfigKey{"server.*.wal_fetch", kText, "", false, "",
              "a command with %f and %p, run without a shell; empty: none",
              "Gets WAL that the server has removed: segment %f into the file %p. Exit 0: done; 1: "
              "not there.",
              set_wal_fetch},
    ConfigKey{"server.*.wal_fetch_timeout", kText, "60s", false, "", "a duration, 1s to 1h",
              "How long one call may take, and how long a failing one is tried again before a gap.",
              set_wal_fetch_timeout},
    ConfigKey{"server.*.flush_interval", kText, "200ms", false, "", "a duration, 10ms to 10s",
              "The longest that received WAL waits before it is made durable.", set_flush_interval},
    ConfigKey{
        "server.*.acknowledge", kText, "flushed", false, "", "flushed or offloaded",
        "What the server is told to be safe: WAL that is on this disk, or, with offloaded, on a "
        "copy [repo.NAME] too. A synchronous commit then waits for the copy.",
        set_acknowledge},
    ConfigKey{"server.*.backup.every", kText, "24h", false, "", "a duration, 1m to 365d, or off",
              "How often a base backup is taken. off: only by walvault backup.", set_every},
    ConfigKey{"server.*.backup.checkpoint", kText, "spread", false, "", "spread or fast",
              "fast starts a base backup at once, with a burst of writes on the server.",
              set_checkpoint},
    ConfigKey{"server.*.backup.max_rate", kText, "off", false, "",
              "a rate, 32KiB/s to 1GiB/s, or off", "The most a base backup reads from the server.",
              set_max_rate},
    ConfigKey{"repo.primary.url", kText, "", true, "file:///var/lib/walvault",
              "file:///absolute/path", "Where the repository is.", set_url},
    ConfigKey{"repo.primary.reserve", kText, "10%", false, "", "a percentage, 0% to 90%",
              "The part of the disk that base backups leave to the stream: else none begins.",
              set_reserve},
    ConfigKey{"repo.primary.wal_level", kInteger, "2", false, "", "1 to 19",
              "The zstd level of WAL.", set_wal_level},
    ConfigKey{"repo.primary.base_level", kInteger, "1", false, "", "1 to 19",
              "The zstd level of base backups.", set_base_level},
    ConfigKey{"repo.primary.pack_size", kText, "64MiB", false, "", "a size, 1MiB to 1GiB",
              "How much WAL one pack file holds.", set_pack_size},
    ConfigKey{"repo.primary.window", kText, "off", false, "", "a duration, 1s to 3660d, or off",
              "Every second of so long stays here; what is older goes, but for what then and "
              "protect_min keep, and not before each copy that keeps it has it. off: everything "
              "stays.",
              set_rule<parse_window>},
    ConfigKey{"repo.primary.then", kList, "", false, "",
              "daily, weekly and monthly x NUMBER, as in [\"daily x 30\", \"monthly x 84\"]",
              "Of each day (week, month; in UTC) before the window the newest base backup stays.",
              set_rule<parse_then>},
    ConfigKey{"repo.primary.protect_min", kInteger, "2", false, "", "1 to 10000",
              "So many of the newest base backups stay, however old.", set_rule<parse_protect_min>},
    ConfigKey{"repo.primary.expire_grace", kText, "24h", false, "", "a duration, 0s to 366d",
              "How long what expired still lies there, out of sight, before it is deleted.",
              set_expire_grace},
    ConfigKey{
        "repo.primary.evict_below", kText, "off", false, "",
        "a percentage of the disk, 1% to 95%, or off",
        "With less than this free: let go here, oldest first and before the window says so, what "
        "a copy keeps and has.",
        set_evict_below},
    ConfigKey{
        "repo.*.url", kText, "", true, "file:///mnt/backup/walvault",
        "file:///absolute/path or s3://bucket/prefix",
        "A second copy of the repository: a mounted disk, NFS, or a bucket. `walvault repo add "
        "NAME` makes the empty place one.",
        nullptr, set_tier_url},
    ConfigKey{"repo.*.offload_interval", kText, "5s", false, "", "a duration, 1s to 1h",
              "How often what is new goes there: what the loss of this host costs.", nullptr,
              set_offload_interval},
    ConfigKey{"repo.*.window", kText, "off", false, "", "a duration, 1s to 3660d, or off",
              "As in [repo.primary], of what lies there. off: everything stays there.", nullptr,
              set_tier_rule<parse_window>},
    ConfigKey{"repo.*.then", kList, "", false, "",
              "daily, weekly and monthly x NUMBER, as in [\"daily x 30\", \"monthly x 84\"]",
              "As in [repo.primary].", nullptr, set_tier_rule<parse_then>},
    ConfigKey{"repo.*.protect_min", kInteger, "2", false, "", "1 to 10000", "As in [repo.primary].",
              nullptr, set_tier_rule<parse_protect_min>},
    ConfigKey{"repo.*.expire_grace", kText, "24h", false, "", "a duration, 0s to 366d",
              "As in [repo.primary].", nullptr, set_tier_expire_grace},
    ConfigKey{"repo.*.region", kText, "us-east-1", false, "", "a region, such as eu-west-1",
              "Of s3:// alone, as all that follow: where the bucket is.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "region", text);
              },
              true},
    ConfigKey{"repo.*.endpoint", kText, "", false, "",
              "https://host:port; empty: Amazon's for the region",
              "The store, where it is not Amazon.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "endpoint", text);
              },
              true},
    ConfigKey{
        "repo.*.style", kText, "auto", false, "", "path, host or auto",
        "Where the bucket's name goes. auto: into the host's name at Amazon, else into the path.",
        nullptr,
        [](TierConfig& tier, const std::string& text) {
            return set_bucket_option(tier, "style", text);
        },
        true},
    ConfigKey{"repo.*.ca_file", kText, "", false, "", "an absolute path; empty: the system's",
              "Who vouches for the store's certificate.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "ca_file", text);
              },
              true},
    ConfigKey{"repo.*.credentials", kText, "environment", false, "",
              "environment, file:/path, credential:NAME or imds:",
              "Where the keys are: AWS_ACCESS_KEY_ID and so on; a file of lines access_key = …, "
              "secret_key = … that only its owner reads; the role of this machine at Amazon.",
              nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "credentials", text);
              },
              true},
    ConfigKey{"repo.*.storage_class", kText, "", false, "",
              "a class, such as STANDARD_IA; empty: the bucket's",
              "Of packs. Ledger, manifests and the newest WAL are always of the bucket's class.",
              nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "storage_class", text);
              },
              true},
    ConfigKey{"repo.*.storage_class_wal", kText, "", false, "", "a class; empty: storage_class",
              "Of packs of WAL.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "storage_class_wal", text);
              },
              true},
    ConfigKey{"repo.*.storage_class_base", kText, "", false, "", "a class; empty: storage_class",
              "Of packs of base backups.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "storage_class_base", text);
              },
              true},
    ConfigKey{"repo.*.sse", kText, "", false, "",
              "AES256, aws:kms or aws:kms:KEY; empty: the bucket's",
              "Encryption by the store, of what is encrypted here already.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "sse", text);
              },
              true},
    ConfigKey{"repo.*.tags", kList, "", false, "", "at most 10 texts NAME=VALUE",
              "Of every object.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "tags", text);
              },
              true},
    ConfigKey{"repo.*.object_lock", kText, "off", false, "",
              "off, or governance or compliance and days: compliance 30d",
              "How long nobody can remove what is put there; the bucket must have object lock.",
              nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "object_lock", text);
              },
              true},
    ConfigKey{"repo.*.concurrency", kText, "4", false, "", "1 to 32",
              "How many requests are sent at once.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "concurrency", text);
              },
              true},
    ConfigKey{"repo.*.bandwidth", kText, "off", false, "", "a rate, 64KiB/s to 1024GiB/s, or off",
              "The most that is sent.", nullptr,
              [](TierConfig& tier, const std::string& text) {
                  return set_bucket_option(tier, "bandwidth", text);
              },
              true},
    ConfigKey{"archive.speed", kText, "standard", false, "", "standard, bulk or expedited",
              "How fast a restore has objects thawed that lie in an archive class of a bucket.",
              set_thaw_speed},
    ConfigKey{"archive.days", kInteger, "3", false, "", "1 to 365",
              "How long the store keeps what was thawed; a restore that takes longer extends it.",
              set_thaw_days},
    ConfigKey{"archive.poll_interval", kText, "5m", false, "", "a duration, 1s to 24h",
              "How often a restore asks whether what it waits for is thawed.", set_poll_interval},
    ConfigKey{
        "archive.prices", kList, "", false, "",
        "CLASS SPEED PRICE/GB PRICE/1000 TIME, as in [\"GLACIER standard 0.01/GB 0.05/1000 "
        "5h\"]",
        "What thawing costs (a GB, 1000 requests) and how long it takes; for estimates alone.",
        set_prices},
    ConfigKey{"archive.egress", kText, "", false, "", "a price like 0.09/GB; empty: not counted",
              "What a GB costs that leaves the store.", set_egress},
    ConfigKey{"archive.currency", kText, "USD", false, "", "1 to 8 characters", "Of the prices.",
              set_currency},
    ConfigKey{"encryption.key", kText, "", true, "credential:repo.key",
              "credential:NAME or file:/path",
              "Where the master key is. credential: $CREDENTIALS_DIRECTORY/NAME, else NAME beside "
              "this file.",
              set_key},
    ConfigKey{"web.listen", kText, "127.0.0.1:9858", false, "",
              "unix:PATH and a loopback ADDRESS:PORT, by comma; or off",
              "Metrics and status. off: no TCP; the socket for commands (REPO/control.sock) is "
              "always there.",
              set_listen},
    ConfigKey{"log.level", kText, "info", false, "", "trace, debug, info, warn, error, off",
              "What is logged to stderr.", set_log_level},
    ConfigKey{"log.format", kText, "auto", false, "", "auto, text, json",
              "auto: text on a terminal, JSON lines otherwise.", set_log_format},
};

}  // namespace

bool holds_password(const std::string& conninfo) {
    for (std::string_view prefix : {"postgresql://", "postgres://"}) {
        if (!conninfo.starts_with(prefix)) continue;
        std::size_t authority_end = conninfo.find_first_of("/?", prefix.size());
        std::string authority = conninfo.substr(prefix.size(), authority_end - prefix.size());
        std::size_t at = authority.rfind('@');
        if (at != std::string::npos && authority.substr(0, at).find(':') != std::string::npos)
            return true;
    }
    for (std::string_view word : {"password", "sslpassword"}) {
        for (std::size_t at = conninfo.find(word); at != std::string::npos;
             at = conninfo.find(word, at + 1)) {
            bool begins = at == 0 || std::string_view(" \t?&").find(conninfo[at - 1]) !=
                                         std::string_view::npos;
            std::size_t next = conninfo.find_first_not_of(" \t", at + word.size());
            if (begins && next != std::string::npos && conninfo[next] == '=') return true;
        }
    }
    return false;
}

std::span<const ConfigKey> config_keys() { return kKeys; }

const ConfigKey* find_config_key(std::string_view key) {
    for (const ConfigKey& row : kKeys) {
        std::size_t star = row.pattern.find('*');
        if (star == std::string_view::npos) {
            if (row.pattern == key) return &row;
            continue;
        }
        std::string_view tail = row.pattern.substr(star + 1);
        if (!key.starts_with(row.pattern.substr(0, star)) || !key.ends_with(tail)) continue;
        if (key.size() <= star + tail.size()) continue;
        std::string_view name = key.substr(star, key.size() - star - tail.size());
        if (row.set_tier != nullptr && name == "primary") continue;
        if (name.find('.') == std::string_view::npos) return &row;
    }
    return nullptr;
}

}  // namespace walvault::agent
