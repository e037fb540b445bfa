#include "agent/config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/config_values.h"
#include "agent/fetch_command.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

Result<> set_version(Config&, ServerConfig*, const std::string& text) {
    if (text == "1") return {};
    return wrong_value(
        fmt::format("config_version {} is not known; this build reads version 1", text));
}

Result<> set_conninfo(Config&, ServerConfig* server, const std::string& text) {
    if (text.empty())
        return wrong_value("the connection string is empty",
                           "for example host=/run/postgresql user=postgres");
    if (holds_password(text))
        return wrong_value(
            "the connection string holds a password",
            "use peer authentication, passfile=/path, a .pgpass file or a service file");
    server->conninfo = text;
    return {};
}

Result<> set_acknowledge(Config&, ServerConfig* server, const std::string& text) {
    if (text != "flushed" && text != "offloaded")
        return wrong_value(fmt::format("\"{}\" is neither flushed nor offloaded", printable(text)));
    server->acknowledge = text == "offloaded" ? Acknowledge::offloaded : Acknowledge::flushed;
    return {};
}

Result<> set_standby_slots(Config&, ServerConfig* server, const std::string& text) {
    if (text != "on" && text != "off")
        return wrong_value(fmt::format("\"{}\" is neither on nor off", printable(text)));
    server->standby_slots = text == "on";
    return {};
}

Result<> set_slot(Config&, ServerConfig* server, const std::string& text) {
    bool good =
        !text.empty() && text.size() <= 63 &&
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
    if (!good)
        return wrong_value(
            fmt::format("\"{}\" is not a slot name: 1 to 63 of a-z, 0-9 and _", printable(text)));
    server->slot = text;
    return {};
}

Result<> set_time_zone(Config&, ServerConfig* server, const std::string& text) {
    if (!text.empty() && !is_time_zone(text))
        return wrong_value(
            fmt::format("\"{}\" is not a name of the time zone database", printable(text)),
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
        return wrong_value(
            fmt::format("\"{}\" is neither \"fast\" nor \"spread\"", printable(text)));
    server->backup.fast_checkpoint = text == "fast";
    return {};
}

Result<> set_max_rate(Config&, ServerConfig* server, const std::string& text) {
    if (text == "off") {
        server->backup.max_rate_bytes = 0;
        return {};
    }
    if (!text.ends_with("/s"))
        return wrong_value(fmt::format("\"{}\" is not a rate like 200MiB/s", printable(text)));
    // PostgreSQL's own bounds for MAX_RATE.
    WV_TRY(server->backup.max_rate_bytes,
           size_between(text.substr(0, text.size() - 2), 32ull << 10, 1ull << 30));
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
        return wrong_value(
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
            return wrong_value(fmt::format(
                "\"{}\" is not a socket's absolute path of at most 107 bytes", printable(item)));
        config.web.socket = path;
        return {};
    }
    std::size_t colon = item.rfind(':');
    if (colon == std::string::npos)
        return wrong_value(
            fmt::format("\"{}\" is neither unix:PATH nor ADDRESS:PORT", printable(item)));
    WV_TRY(int port, parse_integer(item.substr(colon + 1), 1, 65535));
    std::string host = item.substr(0, colon);
    if (host != "127.0.0.1" && host != "[::1]" && host != "localhost")
        return wrong_value(
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
        return wrong_value(fmt::format(
            "\"{}\" is not a level: trace, debug, info, warn, error, off", printable(text)));
    return {};
}

Result<> set_log_format(Config& config, ServerConfig*, const std::string& text) {
    if (text != "auto" && text != "text" && text != "json")
        return wrong_value(fmt::format("\"{}\" is none of auto, text, json", printable(text)));
    config.log_format.reset();
    if (text == "text") config.log_format = log::Format::text;
    if (text == "json") config.log_format = log::Format::json;
    return {};
}

constexpr std::array kServerKeys{
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
};
constexpr std::array kOtherKeys{
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

std::span<const ConfigKey> config_keys() {
    static const std::vector<ConfigKey> kKeys = [] {
        std::vector<ConfigKey> keys(kServerKeys.begin(), kServerKeys.end());
        const auto journal = journal_keys();
        keys.insert(keys.end(), journal.begin(), journal.end());
        const auto repository = repository_keys();
        keys.insert(keys.end(), repository.begin(), repository.end());
        keys.insert(keys.end(), kOtherKeys.begin(), kOtherKeys.end());
        return keys;
    }();
    return kKeys;
}

const ConfigKey* find_config_key(std::string_view key) {
    for (const ConfigKey& row : config_keys()) {
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
