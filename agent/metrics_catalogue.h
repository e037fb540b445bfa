// AgentMetrics: the handle of every metric the agent exports for one server, made once, all at
// zero.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "agent/config.h"
#include "agent/slot_governor.h"
#include "base/log.h"
#include "base/metrics.h"

namespace walvault::agent {

// Why a stream ended; the label of walvault_stream_disconnects_total.
enum class DisconnectReason {
    stopped,
    server_ended,
    connection_lost,
    not_contiguous,
    gap,
    fork,
    store
};
// What failed; the label of walvault_store_errors_total.
enum class StoreOperation { append, flush, read, close, ledger, index };
// Why a base backup failed; the label of walvault_backup_failures_total.
enum class BackupFailure { connection, corrupt, no_space, store, cancelled };

// How one call of wal_fetch ended; the label of walvault_wal_fetches_total.
enum class FetchResult { found, absent, refused, failed };
// What happened to the line of histories; the label of walvault_history_incidents_total.
enum class HistoryIncident { gap, fork, orphan, unrelated };

// The label values.
std::string_view to_string(DisconnectReason reason);
std::string_view to_string(StoreOperation operation);
std::string_view to_string(BackupFailure failure);
std::string_view to_string(FetchResult result);
std::string_view to_string(HistoryIncident incident);

struct AgentMetrics {
    AgentMetrics(Metrics& metrics, const ServerConfig& server, const std::string& repo);

    // One series per system; made when the server is identified.
    void set_server_info(const std::string& system_identifier, const std::string& pg_version);
    // 1 for `status`, 0 for the others; nothing (no slot): 0 for all.
    void set_slot_status(const std::string& status);
    // NaN when the server sets no limit.
    void set_slot_safe_wal_bytes(std::optional<std::int64_t> bytes);
    // Series per server of a conninfo that names several; made when it is first looked at.
    void set_standby_slot(const std::string& host, bool ready, std::uint64_t retained_bytes);
    // NaN from now on: nobody looks.
    void forget_standby_slot(const std::string& host);
    // 1 for `step`, 0 for the others.
    void set_governor_step(GovernorStep step);
    // `counts` is what the ledger tells of all time: the counters never fall behind it.
    void set_history_incidents(const std::map<HistoryIncident, std::uint64_t>& counts);
    // Of a copy of the repository; made when it is first asked for.
    struct Tier {
        Gauge up;
        Gauge lag_bytes;
        Gauge lag_seconds;
        Gauge until_timestamp_seconds;
        Gauge pending_bytes;
        Counter put_bytes_total;
        Counter errors_total;
    };
    Tier tier(const std::string& name);
    // Of what lies in the repository's directory ("primary") or in a copy.
    struct Retention {
        Gauge window_seconds;
        Gauge last_success_timestamp_seconds;
        Gauge condemned_bytes;
        Counter freed_bytes_total;
    };
    Retention retention(const std::string& repo);
    // Of a database whose row changes are journaled.
    struct Journal {
        Gauge up;
        Gauge stored_lsn_bytes;
        Gauge last_commit_timestamp_seconds;
        Gauge staged_bytes;
        Gauge slot_retained_bytes;
        Gauge slot_catalog_xmin_age;
        Gauge tables;
        Gauge tables_inserts_only;
        Gauge tables_left_out;
        Gauge snapshots_waiting;
        Counter transactions_total;
        Counter changes_total;
        Counter stored_bytes_total;
        Counter gaps_total;
        Counter errors_total;
    };
    Journal journal(const std::string& database);
    // Adds the lines written since the last call; call before each scrape.
    void sync_log_counts();

    Gauge server_timeline;
    Gauge config_last_reload_successful;
    Gauge config_last_reload_success_timestamp_seconds;

    Gauge recoverable_until_timestamp_seconds;
    Gauge recoverable_from_timestamp_seconds;
    Gauge recoverable_gaps;
    Gauge histories;
    Gauge rpo_target_seconds;
    Histogram commit_durable_seconds;

    Gauge stream_connected;
    Gauge stream_synchronous;
    Counter stream_connects_total;
    std::map<DisconnectReason, Counter> stream_disconnects_total;
    Counter stream_received_bytes_total;
    Gauge stream_last_message_timestamp_seconds;
    Gauge upstream_lsn_bytes;
    Gauge received_lsn_bytes;
    Gauge written_lsn_bytes;
    Gauge durable_lsn_bytes;  // flushed_lsn
    Gauge acknowledged_lsn_bytes;
    Gauge closed_lsn_bytes;
    // Of a position behind the server.
    struct Lag {
        Gauge bytes;
        Gauge seconds;
    };
    Lag durable_lag;
    Lag acknowledged_lag;
    Lag closed_lag;
    Histogram flush_duration_seconds;
    Gauge clock_offset_seconds;

    Gauge slot_active;
    Gauge slot_retained_bytes;
    Gauge slot_retained_limit_bytes;
    Counter slot_given_up_total;
    std::map<FetchResult, Counter> wal_fetches_total;

    struct Kind {
        Gauge logical_bytes;
        Gauge stored_bytes;
    };
    Kind store_base;
    Kind store_wal;
    Gauge store_chunks;
    Counter store_chunk_lookups_hit_total;
    Counter store_chunk_lookups_miss_total;
    Counter store_read_bytes_total;
    Counter store_written_bytes_total;
    Gauge store_avail_bytes;
    Gauge store_size_bytes;
    Gauge store_corrupt_chunks;
    std::map<StoreOperation, Counter> store_errors_total;

    Gauge backup_last_success_timestamp_seconds;
    Gauge backup_last_failure_timestamp_seconds;
    Gauge backup_last_duration_seconds;
    Gauge backup_last_logical_bytes;
    Gauge backup_last_stored_bytes;
    Gauge backup_interval_seconds;
    Gauge backup_running;
    Gauge backup_done_bytes;
    Gauge backup_expected_bytes;
    Gauge backups_complete;
    Gauge backups_failed;
    std::map<BackupFailure, Counter> backup_failures_total;
    Counter base_page_checksum_failures_total;

private:
    void make_recovery(const Labels& with_repo);
    void make_stream(const Labels& with_repo);
    void make_slot(const ServerConfig& server);
    void make_store(const std::string& repo);
    void make_backup(const ServerConfig& server);

    Metrics* metrics_;
    Labels server_;
    Labels slot_;
    struct StandbySlot {
        Gauge ready;
        Gauge retained_bytes;
    };
    StandbySlot standby_slot(const std::string& host);
    Gauge slot_safe_wal_bytes_;
    std::map<std::string, Gauge> slot_wal_status_;
    std::map<GovernorStep, Gauge> slot_governor_;
    std::map<HistoryIncident, Counter> history_incidents_total_;
    std::map<HistoryIncident, std::uint64_t> history_incidents_;
    std::map<log::Level, Counter> log_messages_total_;
    std::map<log::Level, std::uint64_t> log_counts_;
};

}  // namespace walvault::agent
