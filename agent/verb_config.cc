// walvault config: check, show, default, explain.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/config_keys.h"
#include "agent/render.h"
#include "agent/verbs.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

int print(std::string_view text) {
    bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    return written ? kExitDone : kExitFailed;
}

int print_json(const Globals& globals, const Json& json) {
    print_answer(globals, json);
    return kExitDone;
}

int check(const Globals& globals) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    if (globals.output != Output::text) {
        Json servers = Json::array();
        for (const ServerConfig& server : config->servers)
            servers.push_back(server.name);
        return print_json(globals, Json{{"ok", true},
                                        {"config", globals.config_path},
                                        {"servers", servers},
                                        {"warnings", config->warnings}});
    }
    std::string names;
    for (const ServerConfig& server : config->servers)
        names += (names.empty() ? "" : ", ") + server.name;
    return print(fmt::format("{} is good. Servers: {}. Repository: {}\n", globals.config_path,
                             names, config->repo.root));
}

int show(const Globals& globals, bool with_origin) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    if (globals.output != Output::text) {
        Json all = Json::array();
        for (const Config::Origin& row : config->origins)
            all.push_back({{"key", row.key}, {"value", row.value}, {"origin", row.origin}});
        return print_json(globals, all);
    }
    Table table(with_origin ? std::vector<std::string>{"KEY", "VALUE", "ORIGIN"}
                            : std::vector<std::string>{"KEY", "VALUE"});
    for (const Config::Origin& row : config->origins) {
        std::vector<std::string> cells{row.key, printable(row.value)};
        if (with_origin) cells.push_back(printable(row.origin));
        table.add_row(std::move(cells));
    }
    return print(table.text());
}

int explain(const Globals& globals, const std::string& key) {
    const ConfigKey* row = find_config_key(key);
    if (row == nullptr) {
        std::vector<std::string> names;
        for (const ConfigKey& known : config_keys()) {
            if (known.pattern == key) row = &known;
            names.emplace_back(known.pattern);
        }
        if (row == nullptr)
            return report(globals, Error{Errc::invalid_argument,
                                         fmt::format("there is no key \"{}\"{}", printable(key),
                                                     did_you_mean(key, names)),
                                         "walvault config default prints every key"});
    }
    if (globals.output != Output::text)
        return print_json(globals, Json{{"key", row->pattern},
                                        {"required", row->required},
                                        {"default", row->fallback},
                                        {"bounds", row->bounds},
                                        {"explanation", row->explanation}});
    std::string fallback = row->required           ? "none, it must be given"
                           : row->fallback.empty() ? "empty"
                                                   : std::string(row->fallback);
    return print(fmt::format("{}\n  {}\n  value    {}\n  default  {}\n", row->pattern,
                             row->explanation, row->bounds, fallback));
}

}  // namespace

int verb_config(const Globals& globals, const ConfigArguments& arguments) {
    if (arguments.action == "check") return check(globals);
    if (arguments.action == "show") return show(globals, arguments.origin);
    if (arguments.action == "explain") return explain(globals, arguments.key);
    if (globals.output != Output::text)
        return print_json(globals, Json{{"config", example_config()}});
    return print(example_config());
}

}  // namespace walvault::agent
