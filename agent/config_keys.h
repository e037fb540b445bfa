// The keys of the configuration: one row each with default, bounds, explanation and how it is set.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config.h"

namespace walvault::agent {

struct ConfigKey {
    enum class Kind { text, integer, list };  // list: of texts; here they are joined by ", "
    // "server.*.slot"; the star is the server's name, in "repo.*.url" the tier's, in
    // "class.*.tables" the class's.
    std::string_view pattern;
    Kind kind = Kind::text;
    std::string_view fallback;  // as it would be written; empty: none
    bool required = false;
    std::string_view example;  // what the example file says; empty: the fallback
    std::string_view bounds;   // "a duration, 10ms to 10s"
    std::string_view explanation;
    // Errors: invalid_argument with what is wrong about the value, without its place.
    Result<> (*set)(Config& config, ServerConfig* server, const std::string& text) = nullptr;
    // In its place where the key is a tier's.
    Result<> (*set_tier)(TierConfig& tier, const std::string& text) = nullptr;
    bool of_bucket = false;  // it says something of s3:// alone
    // In its place where the key is a class's.
    Result<> (*set_class)(ClassConfig& data_class, const std::string& text) = nullptr;
};

// For the tables.
inline constexpr auto kText = ConfigKey::Kind::text;
inline constexpr auto kInteger = ConfigKey::Kind::integer;
inline constexpr auto kList = ConfigKey::Kind::list;

std::span<const ConfigKey> config_keys();
// Those of them that are of [repo.…] and [archive].
std::span<const ConfigKey> repository_keys();
// Those of [server.….journal] and [class.…].
std::span<const ConfigKey> journal_keys();
// The row for "server.main.slot", or nullptr.
const ConfigKey* find_config_key(std::string_view key);
// True if a libpq connection string or URI carries a password in itself.
bool holds_password(const std::string& conninfo);
// The known name nearest to `name` among `candidates`, or empty if none is near enough to suggest.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);
// ", did you mean "x"?" or nothing.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace walvault::agent
