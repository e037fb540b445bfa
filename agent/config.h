// Config: /etc/walvault/walvault.toml as values; every key with its unit, default and bounds.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/result.h"
#include "storage/retention.h"
#include "storage/thaw_plan.h"
#include "storage/tier_store.h"

namespace walvault::agent {

struct BackupConfig {
    std::chrono::seconds every{
        24 * 3600};  // [server.X.backup] every; 0 ("off"): the first, then only on request
    bool fast_checkpoint = false;      // checkpoint = "fast" | "spread"
    std::uint64_t max_rate_bytes = 0;  // per second; 0: unlimited
};

// What a commit that waits for this agent waits for: its disk, or a copy of the repository as well.
enum class Acknowledge { flushed, offloaded };

// [server.X.journal]: which rows' changes are kept, and for whom. Off without databases.
struct JournalConfig {
    std::vector<std::string> databases;
    std::vector<std::string> tables{"*.*"};           // patterns; the last one that fits decides
    std::vector<std::string> masked_columns;          // "schema.table.column"
    std::vector<std::string> dropped_columns;         // the same, "=drop"
    std::string slot = "walvault_journal";            // how the slots' names begin
    std::optional<std::uint64_t> slot_give_up_bytes;  // nothing: never
    std::chrono::milliseconds flush_interval{500};    // 10ms..60s
    std::uint64_t staging_bytes = 20ull << 30;        // of transactions in progress
    bool snapshots = true;                            // the rows that a table has when it joins

    bool enabled() const { return !databases.empty(); }
    bool operator==(const JournalConfig&) const = default;
};

// [class.NAME]: tables whose changes have packs and keys of their own.
struct ClassConfig {
    std::string name;
    std::vector<std::string> tables;

    bool operator==(const ClassConfig&) const = default;
};

struct ServerConfig {
    std::string name;
    std::string conninfo;
    std::string slot = "walvault";
    bool standby_slots = true;  // the slot is kept on every other server of conninfo, too
    std::string time_zone;      // IANA name; empty: TZ, else the system's
    std::chrono::milliseconds rpo_target{5000};
    std::uint64_t slot_limit_bytes = 20ull << 30;
    std::optional<std::uint64_t> slot_give_up_bytes;  // nothing: the slot is never given up
    std::vector<std::string> wal_fetch;               // a command in words; empty: none
    std::chrono::milliseconds wal_fetch_timeout{60000};
    std::chrono::milliseconds flush_interval{200};  // 10ms..10s
    Acknowledge acknowledge = Acknowledge::flushed;
    BackupConfig backup;
    JournalConfig journal;
};

struct RepoConfig {
    std::string name;
    std::string root;                        // of url = "file:///…"
    double reserve_ratio = 0.10;             // of the disk: the stream's, not for base backups
    int wal_level = 1;                       // zstd level of WAL frames, 1..19
    int base_level = 1;                      // zstd level of base backup chunks
    std::uint64_t pack_bytes = 64ull << 20;  // plain bytes of WAL in a pack
    storage::RetentionRules retention;       // window, then, protect_min
    std::chrono::seconds expire_grace{24 * 3600};  // from condemned to deleted
    std::optional<double> evict_below_ratio;       // of the disk; nothing: the window alone decides
};

// Another copy of the repository, kept up by the agent: [repo.NAME] besides [repo.primary].
struct TierConfig {
    std::string name;
    std::string url;         // without options
    bool is_bucket = false;  // of s3://
    storage::S3Options bucket{.concurrency = 4};
    std::chrono::milliseconds offload_interval{5000};  // 1s..1h
    storage::RetentionRules retention;                 // of what lies there
    std::chrono::seconds expire_grace{24 * 3600};

    storage::TierPlace place() const {
        return {url, is_bucket ? std::optional(bucket) : std::nullopt};
    }
};

// [archive]: how a restore thaws what lies in an archive class.
struct ArchiveConfig {
    storage::ThawOptions thaw;                         // speed, days
    std::chrono::milliseconds poll_interval{300'000};  // 1s..24h
    storage::ThawPrices prices;
};

struct WebConfig {
    std::string socket;                 // unix path; default REPO/control.sock
    std::string address = "127.0.0.1";  // loopback only
    unsigned port = 9858;               // 0: no TCP listener
};

struct Config {
    std::vector<ServerConfig> servers;
    RepoConfig repo;  // [repo.primary]
    std::vector<TierConfig> tiers;
    ArchiveConfig archive;
    std::vector<ClassConfig> classes;
    // [encryption] key as a path: "file:/X" is /X, "credential:X" is $CREDENTIALS_DIRECTORY/X, and
    // X beside the configuration outside of a service.
    std::string key_path;
    WebConfig web;
    log::Level log_level = log::Level::info;
    std::optional<log::Format> log_format;  // nothing: text on a terminal, json otherwise
    // Where each effective value came from, for `config show --origin`: "server.main.slot" ->
    // value, origin.
    struct Origin {
        std::string key;
        std::string value;
        std::string origin;  // "/etc/walvault/walvault.toml:7", "WALVAULT_…", "default"
    };
    std::vector<Origin> origins;
    std::vector<std::string> warnings;  // a WALVAULT_* variable that is no key

    // Errors: invalid_argument naming the servers there are, if `name` is none of them or is empty
    // with several configured.
    Result<const ServerConfig*> server(const std::string& name) const;
    // Errors: invalid_argument naming those there are.
    Result<const TierConfig*> tier(const std::string& name) const;
};

// Reads `path`, then conf.d/*.toml beside it in order, then WALVAULT_* variables. Unknown keys,
// wrong types and values out of bounds are errors: "walvault.toml:3:1: unknown key …, did you mean
// …?". Errors: invalid_argument, not_found.
Result<Config> load_config(FileSystem& files, const std::string& path,
                           const std::map<std::string, std::string>& environment);

// The [archive] table of a configuration file, whatever else is in it. Errors: as load_config().
Result<ArchiveConfig> load_archive_config(FileSystem& files, const std::string& path);

// "20GiB" and "200ms", "14d": the texts of the configuration. Errors: invalid_argument.
Result<std::uint64_t> parse_size(std::string_view text);
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

// The default file with every key explained; what deploy/walvault.toml.example holds.
std::string example_config();

}  // namespace walvault::agent
