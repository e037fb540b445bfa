// The configuration's files and variables: TOML with places, then WALVAULT_* over it.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "agent/config.h"
#include "agent/config_keys.h"
#include "agent/render.h"
#include "storage/repository_files.h"

namespace walvault::agent {
namespace {

struct Setting {
    std::string value;
    std::string origin;
};
using Settings = std::map<std::string, Setting>;

constexpr std::uint64_t kFileBytesMax = 1ull << 20;

std::string place(const std::string& path, const toml::source_region& source) {
    return fmt::format("{}:{}:{}", path, source.begin.line, source.begin.column);
}

// Names that may stand directly below `table` ("server.main"), for suggestions.
std::vector<std::string> names_below(const std::string& table) {
    std::set<std::string> names;
    auto components = [](std::string_view path) {
        std::vector<std::string> out;
        for (std::size_t from = 0; from <= path.size();) {
            std::size_t dot = std::min(path.find('.', from), path.size());
            out.emplace_back(path.substr(from, dot - from));
            from = dot + 1;
        }
        return out;
    };
    std::vector<std::string> parent =
        table.empty() ? std::vector<std::string>{} : components(table);
    for (const ConfigKey& key : config_keys()) {
        std::vector<std::string> pattern = components(key.pattern);
        if (pattern.size() <= parent.size()) continue;
        bool below = true;
        for (std::size_t i = 0; i < parent.size(); ++i)
            below = below &&
                    (pattern[i] == parent[i] ||
                     (pattern[i] == "*" && (key.set_tier == nullptr || parent[i] != "primary")));
        if (below && pattern[parent.size()] != "*") names.insert(pattern[parent.size()]);
    }
    return {names.begin(), names.end()};
}

bool is_table_name(const std::string& path) {
    if (path == "server" || path == "class") return true;
    bool server = path.starts_with("server.") && std::count(path.begin(), path.end(), '.') == 1;
    return server || !names_below(path).empty();
}

bool is_plain_name(const std::string& name) {
    return !name.empty() && name.size() <= 63 && name.front() != '-' &&
           name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string::npos;
}

Result<> check_repo_name(const std::string& name, const std::string& where) {
    if (is_plain_name(name)) return {};
    return fail(Errc::invalid_argument,
                fmt::format("{}: \"{}\" is not a repository's name: 1 to 63 of a-z, 0-9, _ and -",
                            where, printable(name)));
}

Result<> check_server_name(const std::string& name, const std::string& where) {
    const bool good = is_plain_name(name);
    if (good && storage::is_reserved_name(name))
        return fail(
            Errc::invalid_argument,
            fmt::format("{}: \"{}\" cannot be a server's name: the repository keeps files of "
                        "its own under it",
                        where, name));
    if (good) return {};
    return fail(Errc::invalid_argument,
                fmt::format("{}: \"{}\" is not a server's name: 1 to 63 of a-z, 0-9, _ and -",
                            where, printable(name)));
}

Result<> check_class_name(const std::string& name, const std::string& where) {
    if (is_plain_name(name)) return {};
    return fail(Errc::invalid_argument,
                fmt::format("{}: \"{}\" is not a class's name: 1 to 63 of a-z, 0-9, _ and -", where,
                            printable(name)));
}

tl::unexpected<Error> unknown_key(const std::string& table, const std::string& name,
                                  const std::string& where) {
    std::string in = table.empty() ? "" : fmt::format(" in [{}]", printable(table));
    return fail(Errc::invalid_argument,
                fmt::format("{}: unknown key \"{}\"{}{}", where, printable(name), in,
                            did_you_mean(name, names_below(table))),
                "walvault config default prints every key with its meaning");
}

// ["a", "b"] as "a, b"; nothing if it is no list of texts.
std::optional<std::string> joined(const toml::node& node) {
    if (!node.is_array()) return std::nullopt;
    std::string text;
    for (const toml::node& item : *node.as_array()) {
        if (!item.is_string()) return std::nullopt;
        text += (text.empty() ? "" : ", ") + **item.as_string();
    }
    return text;
}

std::string_view kind_text(ConfigKey::Kind kind) {
    switch (kind) {
        case ConfigKey::Kind::integer:
            return "a whole number";
        case ConfigKey::Kind::list:
            return "a list of texts in quotes";
        case ConfigKey::Kind::text:
            break;
    }
    return "text in quotes";
}

Result<> take_value(const std::string& path, const std::string& table, const toml::key& toml_key,
                    const toml::node& node, Settings& settings) {
    const std::string name(toml_key.str());
    std::string key = table.empty() ? name : table + '.' + name;
    std::string where = place(path, node.source());
    const ConfigKey* row = find_config_key(key);
    if (row == nullptr) return unknown_key(table, name, place(path, toml_key.source()));
    std::string value;
    if (row->kind == ConfigKey::Kind::integer && node.is_integer())
        value = std::to_string(**node.as_integer());
    else if (row->kind == ConfigKey::Kind::text && node.is_string())
        value = **node.as_string();
    else if (auto list = joined(node); row->kind == ConfigKey::Kind::list && list)
        value = *list;
    else
        return fail(Errc::invalid_argument,
                    fmt::format("{}: {} must be {} ({})", where, printable(key),
                                kind_text(row->kind), row->bounds));
    settings[key] = Setting{value, fmt::format("{}:{}", path, node.source().begin.line)};
    return {};
}

Result<> walk(const std::string& path, const std::string& table, const toml::table& content,
              Settings& settings, int depth) {
    for (auto&& [toml_key, node] : content) {
        std::string name(toml_key.str());
        if (!node.is_table()) {
            WV_CHECK(take_value(path, table, toml_key, node, settings));
            continue;
        }
        std::string below = table.empty() ? name : table + '.' + name;
        std::string where = place(path, toml_key.source());
        if (table == "server") WV_CHECK(check_server_name(name, where));
        if (table == "repo") WV_CHECK(check_repo_name(name, where));
        if (table == "class") WV_CHECK(check_class_name(name, where));
        // No table of the configuration is deeper than [server.NAME.backup].
        if (depth > 3 || name.find('.') != std::string::npos || !is_table_name(below))
            return unknown_key(table, name, where);
        WV_CHECK(walk(path, below, *node.as_table(), settings, depth + 1));
    }
    return {};
}

Result<> read_toml(FileSystem& files, const std::string& path, Settings& settings) {
    WV_TRY(ByteBuffer bytes, read_file(files, path, kFileBytesMax));
    toml::table content;
    try {
        content = toml::parse(as_text(bytes), std::string_view(path));
    } catch (const toml::parse_error& error) {
        return fail(Errc::invalid_argument, fmt::format("{}: {}", place(path, error.source()),
                                                        printable(error.description())));
    }
    return walk(path, "", content, settings, 1);
}

Result<> read_files(FileSystem& files, const std::string& path, Settings& settings) {
    auto main_file = read_toml(files, path, settings);
    if (!main_file && main_file.error().code == Errc::not_found)
        return fail(Errc::not_found, fmt::format("there is no configuration at {}", path),
                    "walvault init writes one; --config names another");
    WV_CHECK(std::move(main_file));
    std::size_t slash = path.rfind('/');
    std::string directory = (slash == std::string::npos ? "." : path.substr(0, slash)) + "/conf.d";
    auto entries = files.list(directory);
    if (!entries && entries.error().code == Errc::not_found) return {};
    if (!entries) return fail(std::move(entries).error());
    for (const FileInfo& entry : *entries) {
        if (entry.is_directory || !entry.name.ends_with(".toml") || entry.name.front() == '.')
            continue;
        WV_CHECK(read_toml(files, directory + '/' + entry.name, settings));
    }
    return {};
}

// "WALVAULT_SERVER__MAIN__CONNINFO" -> "server.main.conninfo".
std::string key_of_variable(std::string_view name) {
    std::string key;
    for (std::size_t at = std::string_view("WALVAULT_").size(); at < name.size(); ++at) {
        if (name.substr(at, 2) == "__") {
            key += '.';
            ++at;
        } else {
            key += static_cast<char>(std::tolower(static_cast<unsigned char>(name[at])));
        }
    }
    return key;
}

Result<> read_environment(const std::map<std::string, std::string>& environment, Settings& settings,
                          std::vector<std::string>& warnings) {
    for (const auto& [name, value] : environment) {
        if (!name.starts_with("WALVAULT_")) continue;
        if (name == "WALVAULT_CONFIG" || name == "WALVAULT_PROGRESS_FPS") continue;
        std::string key = key_of_variable(name);
        if (find_config_key(key) == nullptr) {
            warnings.push_back(
                fmt::format("the variable {} is not known and changes nothing", printable(name)));
            continue;
        }
        if (key.starts_with("server."))
            WV_CHECK(check_server_name(key.substr(7, key.find('.', 7) - 7), name));
        if (key.starts_with("repo."))
            WV_CHECK(check_repo_name(key.substr(5, key.find('.', 5) - 5), name));
        if (key.starts_with("class."))
            WV_CHECK(check_class_name(key.substr(6, key.find('.', 6) - 6), name));
        settings[key] = Setting{value, name};
    }
    return {};
}

ServerConfig* server_of(Config& config, const std::string& key) {
    if (!key.starts_with("server.")) return nullptr;
    std::string name = key.substr(7, key.find('.', 7) - 7);
    for (ServerConfig& server : config.servers)
        if (server.name == name) return &server;
    config.servers.push_back(ServerConfig{.name = name});
    return &config.servers.back();
}

TierConfig& tier_of(Config& config, const std::string& key) {
    std::string name = key.substr(5, key.find('.', 5) - 5);
    for (TierConfig& tier : config.tiers)
        if (tier.name == name) return tier;
    config.tiers.push_back(TierConfig{.name = name});
    return config.tiers.back();
}

ClassConfig& class_of(Config& config, const std::string& key) {
    std::string name = key.substr(6, key.find('.', 6) - 6);
    for (ClassConfig& each : config.classes)
        if (each.name == name) return each;
    config.classes.push_back(ClassConfig{.name = name});
    return config.classes.back();
}

Result<> apply_setting(const ConfigKey& row, const std::string& key, const std::string& value,
                       Config& config) {
    if (row.set_tier != nullptr) return row.set_tier(tier_of(config, key), value);
    if (row.set_class != nullptr) return row.set_class(class_of(config, key), value);
    return row.set(config, server_of(config, key), value);
}

Result<> apply_settings(const Settings& settings, Config& config) {
    for (const auto& [key, setting] : settings) {
        auto set = apply_setting(*find_config_key(key), key, setting.value, config);
        if (set) continue;
        Error error = std::move(set).error();
        error.message = fmt::format("{}: {}: {}", setting.origin, key, error.message);
        return fail(std::move(error));
    }
    return {};
}

// The warning comes before what it warns of.
Result<> check_limits(const Config& config, const std::string& path) {
    for (const ServerConfig& server : config.servers)
        if (server.slot_give_up_bytes && *server.slot_give_up_bytes < server.slot_limit_bytes)
            return fail(Errc::invalid_argument,
                        fmt::format("{}: server.{}.slot_give_up is {}, below slot_limit, {}", path,
                                    server.name, format_size(*server.slot_give_up_bytes),
                                    format_size(server.slot_limit_bytes)),
                        "the alert has to come before the slot goes: lower slot_limit too");
    return {};
}

// Where a tier or the repository is, so that one place inside of another begins with it.
Result<std::string> place_text(const TierConfig& tier) {
    if (!tier.is_bucket) return tier.url + "/";
    WV_TRY(storage::S3Endpoint endpoint, storage::s3_endpoint(tier.bucket));
    std::string text = endpoint.origin + endpoint.path_root + "/";
    if (!tier.bucket.prefix.empty()) text += tier.bucket.prefix + "/";
    return text;
}

// A copy on the same place is none, and one inside of another is taken for its packs.
Result<> check_tiers(const Config& config, const std::string& path) {
    struct Place {
        std::string name, url, text;
    };
    const std::string primary = "file://" + config.repo.root;
    std::vector<Place> places{{"primary", primary, primary + "/"}};
    for (const TierConfig& tier : config.tiers) {
        auto mine = place_text(tier);
        if (!mine) {
            Error error = std::move(mine).error();
            error.message = fmt::format("{}: repo.{}: {}", path, tier.name, error.message);
            return fail(std::move(error));
        }
        for (const Place& other : places) {
            if (!mine->starts_with(other.text) && !other.text.starts_with(*mine)) continue;
            return fail(
                Errc::invalid_argument,
                fmt::format("{}: repo.{}.url, {}, is the place of repo.{}, {}, or inside of it",
                            path, tier.name, tier.url, other.name, other.url),
                "a copy needs a place of its own, best on another machine");
        }
        places.push_back({tier.name, tier.url, std::move(*mine)});
    }
    return {};
}

Result<> check_needs_of_copies(const Config& config, const std::string& path) {
    if (config.repo.evict_below_ratio && config.tiers.empty())
        return fail(
            Errc::invalid_argument,
            fmt::format("{}: repo.primary.evict_below is set, and no copy is configured", path),
            "add [repo.NAME] with a url: only what a copy has is let go");
    for (const ServerConfig& server : config.servers)
        if (server.acknowledge == Acknowledge::offloaded && config.tiers.empty())
            return fail(
                Errc::invalid_argument,
                fmt::format("{}: server.{}.acknowledge is offloaded, and no copy is configured",
                            path, server.name),
                "add [repo.NAME] with a url, or acknowledge what is flushed");
    return {};
}

// What is said of a bucket where there is none was meant for something else.
Result<> check_bucket_keys(const Settings& settings, const Config& config) {
    for (const auto& [key, setting] : settings) {
        const ConfigKey* row = find_config_key(key);
        if (!row->of_bucket || setting.value == row->fallback) continue;
        WV_TRY(const TierConfig* tier, config.tier(key.substr(5, key.find('.', 5) - 5)));
        if (tier->is_bucket) continue;
        return fail(Errc::invalid_argument,
                    fmt::format("{}: {} is for a url of s3:// alone, and that of repo.{} is \"{}\"",
                                setting.origin, key, tier->name, tier->url));
    }
    return {};
}

// Completes `origins` with what no file and no variable set; a required key without value is an
// error.
Result<> fill_origins(const Settings& settings, const std::string& path, Config& config) {
    auto add = [&](const ConfigKey& row, const std::string& key) -> Result<> {
        auto found = settings.find(key);
        if (found == settings.end() && row.required)
            return fail(Errc::invalid_argument, fmt::format("{}: {} is missing", path, key),
                        fmt::format("for example {} = \"{}\"", key.substr(key.rfind('.') + 1),
                                    row.example));
        bool given = found != settings.end();
        config.origins.push_back({key, given ? found->second.value : std::string(row.fallback),
                                  given ? found->second.origin : "default"});
        return {};
    };
    for (const ConfigKey& row : config_keys()) {
        std::size_t star = row.pattern.find('*');
        if (star == std::string_view::npos) {
            WV_CHECK(add(row, std::string(row.pattern)));
            continue;
        }
        if (row.set_tier != nullptr) {
            for (const TierConfig& tier : config.tiers)
                WV_CHECK(add(row, std::string(row.pattern).replace(star, 1, tier.name)));
            continue;
        }
        if (row.set_class != nullptr) {
            for (const ClassConfig& each : config.classes)
                WV_CHECK(add(row, std::string(row.pattern).replace(star, 1, each.name)));
            continue;
        }
        for (const ServerConfig& server : config.servers)
            WV_CHECK(add(row, std::string(row.pattern).replace(star, 1, server.name)));
    }
    return {};
}

// "credential:NAME" is the file systemd put there, or NAME beside the configuration outside of a
// service.
void resolve_paths(const std::string& path, const std::map<std::string, std::string>& environment,
                   Config& config) {
    if (config.web.socket.empty()) config.web.socket = config.repo.root + "/control.sock";
    auto directory = environment.find("CREDENTIALS_DIRECTORY");
    const bool service = directory != environment.end() && !directory->second.empty();
    const std::size_t slash = path.rfind('/');
    const std::string beside = slash == std::string::npos ? "." : path.substr(0, slash);
    constexpr std::string_view kCredential = "credential:";
    if (config.key_path.starts_with(kCredential))
        config.key_path = (service ? directory->second : beside) + '/' +
                          config.key_path.substr(kCredential.size());
    for (TierConfig& tier : config.tiers)
        if (!service && tier.bucket.credentials.starts_with(kCredential))
            tier.bucket.credentials = "file:" + std::filesystem::absolute(beside).string() + '/' +
                                      tier.bucket.credentials.substr(kCredential.size());
}

}  // namespace

Result<ArchiveConfig> load_archive_config(FileSystem& files, const std::string& path) {
    Settings settings;
    WV_CHECK(read_toml(files, path, settings));
    std::erase_if(settings, [](const auto& one) { return !one.first.starts_with("archive."); });
    Config config;
    WV_CHECK(apply_settings(settings, config));
    return config.archive;
}

Result<Config> load_config(FileSystem& files, const std::string& path,
                           const std::map<std::string, std::string>& environment) {
    Settings settings;
    Config config;
    config.repo.name = "primary";
    WV_CHECK(read_files(files, path, settings));
    WV_CHECK(read_environment(environment, settings, config.warnings));
    WV_CHECK(apply_settings(settings, config));
    if (config.servers.empty())
        return fail(Errc::invalid_argument, fmt::format("{}: no server is configured", path),
                    "add [server.main] with conninfo = \"…\"");
    WV_CHECK(check_limits(config, path));
    WV_CHECK(fill_origins(settings, path, config));
    WV_CHECK(check_bucket_keys(settings, config));
    WV_CHECK(check_tiers(config, path));
    WV_CHECK(check_needs_of_copies(config, path));
    resolve_paths(path, environment, config);
    if (config.web.socket.size() > 107)
        return fail(Errc::invalid_argument,
                    fmt::format("the socket's path {} has {} bytes, more than 107",
                                config.web.socket, config.web.socket.size()),
                    "name a shorter one: [web] listen = \"unix:/run/walvault/control.sock, "
                    "127.0.0.1:9858\"");
    return config;
}

}  // namespace walvault::agent
