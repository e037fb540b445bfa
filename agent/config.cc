#include "agent/config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <limits>

#include "agent/config_keys.h"
#include "agent/render.h"
#include "agent/verbs.h"

extern char** environ;

namespace walvault::agent {
namespace {

struct Unit {
    std::string_view name;
    std::uint64_t factor;
};
constexpr std::array kSizeUnits{Unit{"B", 1}, Unit{"KiB", 1ull << 10}, Unit{"MiB", 1ull << 20},
                                Unit{"GiB", 1ull << 30}, Unit{"TiB", 1ull << 40}};
constexpr std::array kDurationUnits{Unit{"ms", 1},         Unit{"s", 1'000},
                                    Unit{"m", 60'000},     Unit{"h", 3'600'000},
                                    Unit{"d", 86'400'000}, Unit{"w", 604'800'000}};

// Digits at the front of `text`; takes them off. Errors: none or more than 64 bits.
Result<std::uint64_t> take_number(std::string_view& text, std::string_view whole) {
    std::uint64_t number = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
        if (__builtin_mul_overflow(number, std::uint64_t{10}, &number) ||
            __builtin_add_overflow(number, static_cast<std::uint64_t>(text[digits] - '0'), &number))
            return fail(Errc::invalid_argument,
                        fmt::format("\"{}\" is too large", printable(whole)));
    }
    if (digits == 0)
        return fail(Errc::invalid_argument,
                    fmt::format("\"{}\" does not begin with a number", printable(whole)));
    text.remove_prefix(digits);
    return number;
}

template <std::size_t n>
const Unit* unit_named(const std::array<Unit, n>& units, std::string_view name) {
    for (const Unit& unit : units)
        if (unit.name == name) return &unit;
    return nullptr;
}

Result<std::uint64_t> times(std::uint64_t number, const Unit& unit, std::string_view whole) {
    std::uint64_t product = 0;
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max() / 1'000;
    if (__builtin_mul_overflow(number, unit.factor, &product) || product > kMost)
        return fail(Errc::invalid_argument, fmt::format("\"{}\" is too large", printable(whole)));
    return product;
}

std::string quoted(std::string_view value) { return fmt::format("\"{}\"", value); }

// As the file says it.
std::string written(ConfigKey::Kind kind, std::string_view value) {
    if (kind == ConfigKey::Kind::integer) return std::string(value);
    if (kind == ConfigKey::Kind::text) return quoted(value);
    std::string items;
    while (!value.empty()) {
        const std::size_t comma = std::min(value.find(", "), value.size());
        items += (items.empty() ? "" : ", ") + quoted(value.substr(0, comma));
        value.remove_prefix(std::min(comma + 2, value.size()));
    }
    return "[" + items + "]";
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    std::string_view rest = text;
    WV_TRY(std::uint64_t number, take_number(rest, text));
    while (rest.starts_with(' '))
        rest.remove_prefix(1);
    if (const Unit* unit = unit_named(kSizeUnits, rest)) return times(number, *unit, text);
    return fail(Errc::invalid_argument,
                fmt::format("\"{}\" is not a size: {}", printable(text),
                            rest.empty() ? "its unit is missing" : "its unit is not known"),
                "write B, KiB, MiB, GiB or TiB (1 GiB = 1024 MiB); KB and GB mean different things "
                "to different people");
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    std::string_view rest = text;
    std::uint64_t total = 0;
    do {
        WV_TRY(std::uint64_t number, take_number(rest, text));
        std::size_t letters =
            std::min(rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz"), rest.size());
        const Unit* unit = unit_named(kDurationUnits, rest.substr(0, letters));
        if (unit == nullptr)
            return fail(Errc::invalid_argument,
                        fmt::format("\"{}\" is not a duration: {}", printable(text),
                                    letters == 0 ? "its unit is missing" : "its unit is not known"),
                        "write ms, s, m, h, d or w, as in 200ms or 1h30m");
        WV_TRY(std::uint64_t part, times(number, *unit, text));
        if (__builtin_add_overflow(total, part, &total) ||
            total > std::numeric_limits<std::int64_t>::max() / 1'000)
            return fail(Errc::invalid_argument,
                        fmt::format("\"{}\" is too large", printable(text)));
        rest.remove_prefix(letters);
    } while (!rest.empty());
    return std::chrono::milliseconds(static_cast<std::int64_t>(total));
}

Result<const ServerConfig*> Config::server(const std::string& wanted) const {
    if (wanted.empty() && servers.size() == 1) return &servers.front();
    std::string names;
    std::vector<std::string> candidates;
    for (const ServerConfig& candidate : servers) {
        if (candidate.name == wanted) return &candidate;
        names += (names.empty() ? "" : ", ") + candidate.name;
        candidates.push_back(candidate.name);
    }
    if (wanted.empty())
        return fail(Errc::invalid_argument,
                    fmt::format("{} servers are configured: {}", servers.size(), names),
                    "say which: --server NAME");
    return fail(Errc::invalid_argument,
                fmt::format("no server \"{}\" is configured{}", printable(wanted),
                            did_you_mean(wanted, candidates)),
                fmt::format("configured: {}", names));
}

Result<const TierConfig*> Config::tier(const std::string& wanted) const {
    std::string names;
    std::vector<std::string> candidates;
    for (const TierConfig& candidate : tiers) {
        if (candidate.name == wanted) return &candidate;
        names += (names.empty() ? "" : ", ") + candidate.name;
        candidates.push_back(candidate.name);
    }
    return fail(Errc::invalid_argument,
                fmt::format("no repository \"{}\" is configured beside the primary one{}",
                            printable(wanted), did_you_mean(wanted, candidates)),
                names.empty() ? "add [repo.NAME] with url = \"file:///…\""
                              : fmt::format("configured: {}", names));
}

std::string example_config() {
    std::string out =
        "# walvault.toml. What is in force, and where it comes from: walvault config show "
        "--origin\n"
        "# A command-line flag wins over a WALVAULT_* variable (WALVAULT_SERVER__MAIN__CONNINFO), "
        "that over\n"
        "# conf.d/*.toml in order, that over this file. Sizes: B KiB MiB GiB TiB. Durations: ms s "
        "m h d w.\n";
    std::string table;
    for (const ConfigKey& key : config_keys()) {
        std::string name(key.pattern);
        // Nobody has a second copy, or a class, without asking for it.
        const std::string off = key.set_tier != nullptr || key.set_class != nullptr ? "# " : "";
        if (std::size_t star = name.find('*'); star != std::string::npos)
            name.replace(star, 1,
                         off.empty()                ? "main"
                         : key.set_class != nullptr ? "sensitive"
                                                    : "second");
        std::size_t dot = name.rfind('.');
        std::string in = dot == std::string::npos ? "" : name.substr(0, dot);
        if (in != table)
            out += fmt::format("\n{}[{}]\n", off, in);
        else if (table.empty())
            out += '\n';
        table = in;
        std::string_view value = key.example.empty() ? key.fallback : key.example;
        out += fmt::format("# {}\n# {}{}.\n", key.explanation, key.required ? "Required: " : "",
                           key.bounds);
        out +=
            fmt::format("{}{} = {}\n", off, dot == std::string::npos ? name : name.substr(dot + 1),
                        written(key.kind, value));
    }
    return out;
}

Result<> configure_log(const Globals& globals, Config& config) {
    if (!globals.log_level.empty() && !log::parse_level(globals.log_level, config.log_level))
        return fail(Errc::invalid_argument,
                    fmt::format("\"{}\" is not a log level", printable(globals.log_level)),
                    "trace, debug, info, warn, error, off");
    // Each -v shows one level more.
    if (globals.log_level.empty())
        config.log_level = static_cast<log::Level>(
            std::max(0, static_cast<int>(config.log_level) - globals.verbose));
    bool terminal = isatty(STDERR_FILENO) == 1;
    log::configure(config.log_level,
                   config.log_format.value_or(terminal ? log::Format::text : log::Format::json));
    return {};
}

Result<Config> load_config(const Globals& globals) {
    std::map<std::string, std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        std::string_view text = *entry;
        std::size_t equals = text.find('=');
        if (equals != std::string_view::npos)
            environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    WV_TRY(Config config, load_config(posix_file_system(), globals.config_path, environment));
    WV_CHECK(configure_log(globals, config));
    for (const std::string& warning : config.warnings)
        log::warn("config.unknown_variable", warning);
    return config;
}

}  // namespace walvault::agent
