// The keys of [repo.primary], of [repo.NAME] and of [archive].
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/config_archive.h"
#include "agent/config_keys.h"
#include "agent/config_values.h"
#include "agent/render.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

Result<std::string> directory_in(const std::string& url) {
    auto root = storage::directory_of_url(url);
    if (root) return root;
    return wrong_value(fmt::format("\"{}\": {}", printable(url), root.error().message),
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
        return wrong_value("the options of a bucket are keys of their own here",
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
        return wrong_value(fmt::format("\"{}\" is not a percentage like 10%", printable(text)));
    WV_TRY(int percent, parse_integer(text.substr(0, text.size() - 1), 0, 90));
    config.repo.reserve_ratio = percent / 100.0;
    return {};
}

Result<> set_evict_below(Config& config, ServerConfig*, const std::string& text) {
    config.repo.evict_below_ratio.reset();
    if (text == "off") return {};
    if (!text.ends_with("%"))
        return wrong_value(
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
    return wrong_value(
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

constexpr std::array kKeys{
    ConfigKey{"repo.primary.url", kText, "", true, "file:///var/lib/walvault",
              "file:///absolute/path", "Where the repository is.", set_url},
    ConfigKey{"repo.primary.reserve", kText, "10%", false, "", "a percentage, 0% to 90%",
              "The part of the disk that base backups leave to the stream: else none begins.",
              set_reserve},
    ConfigKey{"repo.primary.wal_level", kInteger, "1", false, "", "1 to 19",
              "The zstd level of WAL; 1 is made for PostgreSQL's pages, and few gain from more.",
              set_wal_level},
    ConfigKey{"repo.primary.base_level", kInteger, "1", false, "", "1 to 19",
              "The zstd level of base backups; 1 as above.", set_base_level},
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
              "How many packs are sent at once; the newest WAL and the ledger go beside them.",
              nullptr,
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
};

}  // namespace

std::span<const ConfigKey> repository_keys() { return kKeys; }

}  // namespace walvault::agent
