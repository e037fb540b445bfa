#include "agent/metrics_catalogue.h"

#include <array>
#include <limits>

#include "agent/version.h"

namespace walvault::agent {
namespace {

const std::vector<double> kCommitBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                         0.5,   1,      2.5,   5,    10,    30,   60};
const std::vector<double> kFlushBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                        0.025,  0.05,    0.1,    0.25,  1,      5};

constexpr std::array kReasons{DisconnectReason::stopped,
                              DisconnectReason::server_ended,
                              DisconnectReason::connection_lost,
                              DisconnectReason::not_contiguous,
                              DisconnectReason::gap,
                              DisconnectReason::fork,
                              DisconnectReason::store};
constexpr std::array kOperations{StoreOperation::append, StoreOperation::flush,
                                 StoreOperation::read,   StoreOperation::close,
                                 StoreOperation::ledger, StoreOperation::index};
constexpr std::array kFailures{BackupFailure::connection, BackupFailure::corrupt,
                               BackupFailure::no_space, BackupFailure::store,
                               BackupFailure::cancelled};
constexpr std::array kFetchResults{FetchResult::found, FetchResult::absent, FetchResult::refused,
                                   FetchResult::failed};
constexpr std::array kIncidents{HistoryIncident::gap, HistoryIncident::fork,
                                HistoryIncident::orphan, HistoryIncident::unrelated};
constexpr std::array<std::string_view, 4> kSlotStatuses{"reserved", "extended", "unreserved",
                                                        "lost"};

Labels with(Labels labels, const std::string& name, std::string_view value) {
    labels[name] = value;
    return labels;
}

std::string_view level_name(log::Level level) {
    switch (level) {
        case log::Level::trace:
            return "trace";
        case log::Level::debug:
            return "debug";
        case log::Level::info:
            return "info";
        case log::Level::warn:
            return "warn";
        default:
            return "error";
    }
}

}  // namespace

std::string_view to_string(DisconnectReason reason) {
    switch (reason) {
        case DisconnectReason::stopped:
            return "stopped";
        case DisconnectReason::server_ended:
            return "server_ended";
        case DisconnectReason::connection_lost:
            return "connection_lost";
        case DisconnectReason::not_contiguous:
            return "not_contiguous";
        case DisconnectReason::gap:
            return "gap";
        case DisconnectReason::fork:
            return "fork";
        case DisconnectReason::store:
            return "store";
    }
    return "unknown";
}

std::string_view to_string(StoreOperation operation) {
    switch (operation) {
        case StoreOperation::append:
            return "append";
        case StoreOperation::flush:
            return "flush";
        case StoreOperation::read:
            return "read";
        case StoreOperation::close:
            return "close";
        case StoreOperation::ledger:
            return "ledger";
        case StoreOperation::index:
            return "index";
    }
    return "unknown";
}

std::string_view to_string(BackupFailure failure) {
    switch (failure) {
        case BackupFailure::connection:
            return "connection";
        case BackupFailure::corrupt:
            return "corrupt";
        case BackupFailure::no_space:
            return "no_space";
        case BackupFailure::store:
            return "store";
        case BackupFailure::cancelled:
            return "cancelled";
    }
    return "unknown";
}

std::string_view to_string(FetchResult result) {
    switch (result) {
        case FetchResult::found:
            return "found";
        case FetchResult::absent:
            return "absent";
        case FetchResult::refused:
            return "refused";
        case FetchResult::failed:
            return "failed";
    }
    return "unknown";
}

std::string_view to_string(HistoryIncident incident) {
    switch (incident) {
        case HistoryIncident::gap:
            return "gap";
        case HistoryIncident::fork:
            return "fork";
        case HistoryIncident::orphan:
            return "orphan";
        case HistoryIncident::unrelated:
            return "unrelated";
    }
    return "unknown";
}

AgentMetrics::AgentMetrics(Metrics& metrics, const ServerConfig& server, const std::string& repo)
    : metrics_(&metrics),
      server_{{"server", server.name}},
      slot_{{"server", server.name}, {"slot", server.slot}} {
    Labels with_repo = with(server_, "repo", repo);
    metrics
        .gauge("walvault_build_info", "Always 1; the version is a label.", {{"version", kVersion}})
        .set(1);
    server_timeline =
        metrics.gauge("walvault_server_timeline", "Timeline being followed.", server_);
    config_last_reload_successful =
        metrics.gauge("walvault_config_last_reload_successful",
                      "1 if the configuration was accepted when last read.");
    config_last_reload_success_timestamp_seconds =
        metrics.gauge("walvault_config_last_reload_success_timestamp_seconds",
                      "When the configuration was last accepted, Unix time.");
    for (auto level : {log::Level::trace, log::Level::debug, log::Level::info, log::Level::warn,
                       log::Level::error})
        log_messages_total_[level] =
            metrics.counter("walvault_log_messages_total", "Log lines by level.",
                            {{"level", std::string(level_name(level))}});
    make_recovery(with_repo);
    rpo_target_seconds.set(std::chrono::duration<double>(server.rpo_target).count());
    make_stream(with_repo);
    make_slot(server);
    make_store(repo);
    make_backup(server);
}

void AgentMetrics::make_recovery(const Labels& with_repo) {
    recoverable_until_timestamp_seconds = metrics_->gauge(
        "walvault_recoverable_until_timestamp_seconds",
        "Newest moment that can be restored, Unix time; what a crash loses is time() minus this.",
        with_repo);
    recoverable_from_timestamp_seconds =
        metrics_->gauge("walvault_recoverable_from_timestamp_seconds",
                        "Oldest moment that can be restored, Unix time.", with_repo);
    recoverable_gaps =
        metrics_->gauge("walvault_recoverable_gaps",
                        "Intervals inside the window that cannot be restored.", with_repo);
    histories = metrics_->gauge("walvault_histories",
                                "Lineages of WAL in the repository, all of them.", with_repo);
    for (HistoryIncident incident : kIncidents)
        history_incidents_total_[incident] =
            metrics_->counter("walvault_history_incidents_total",
                              "Breaks in the line of histories since the repository began: a gap, "
                              "a fork, commits left "
                              "behind at a promotion, a server related to nothing stored.",
                              with(with_repo, "kind", to_string(incident)));
    rpo_target_seconds = metrics_->gauge("walvault_rpo_target_seconds",
                                         "What a crash may lose, from the configuration.", server_);
    commit_durable_seconds = metrics_->histogram(
        "walvault_commit_durable_seconds", "From a commit on the server until it is durable here.",
        server_, kCommitBuckets);
}

void AgentMetrics::make_stream(const Labels& with_repo) {
    stream_connected =
        metrics_->gauge("walvault_stream_connected", "1 while WAL is streamed.", server_);
    stream_synchronous =
        metrics_->gauge("walvault_stream_synchronous",
                        "1 while commits of the server wait for this agent.", server_);
    stream_connects_total =
        metrics_->counter("walvault_stream_connects_total", "Streams begun.", server_);
    for (DisconnectReason reason : kReasons)
        stream_disconnects_total[reason] =
            metrics_->counter("walvault_stream_disconnects_total", "Streams ended, by reason.",
                              with(server_, "reason", to_string(reason)));
    stream_received_bytes_total =
        metrics_->counter("walvault_stream_received_bytes_total", "WAL received.", server_);
    stream_last_message_timestamp_seconds =
        metrics_->gauge("walvault_stream_last_message_timestamp_seconds",
                        "When the server last sent anything, Unix time.", server_);
    auto position = [&](const std::string& name, const std::string& what) {
        return metrics_->gauge("walvault_" + name + "_lsn_bytes", what + ", LSN as a number.",
                               server_);
    };
    upstream_lsn_bytes = position("upstream", "End of the WAL the server has flushed");
    received_lsn_bytes = position("received", "End of the WAL received");
    written_lsn_bytes = position("written", "End of the WAL written to the repository");
    durable_lsn_bytes = position("durable", "End of the WAL that is durable");
    acknowledged_lsn_bytes =
        position("acknowledged", "End of the WAL reported to the server as flushed");
    closed_lsn_bytes = position("closed", "End of the WAL in closed packs");
    auto lag = [&](const std::string& name, const std::string& what) {
        Lag made;
        made.bytes =
            metrics_->gauge("walvault_" + name + "_lag_bytes",
                            "Upstream minus " + what + " position, taken together.", server_);
        made.seconds = metrics_->gauge("walvault_" + name + "_lag_seconds",
                                       "How long the first byte that is not " + what +
                                           " has been known of; 0 where there is none.",
                                       server_);
        return made;
    };
    durable_lag = lag("durable", "durable");
    acknowledged_lag = lag("acknowledged", "acknowledged");
    closed_lag = lag("closed", "closed");
    flush_duration_seconds = metrics_->histogram(
        "walvault_flush_duration_seconds", "One flush to the disk.", with_repo, kFlushBuckets);
    clock_offset_seconds = metrics_->gauge("walvault_clock_offset_seconds",
                                           "The server's clock minus the agent's.", server_);
}

void AgentMetrics::make_slot(const ServerConfig& server) {
    slot_active = metrics_->gauge("walvault_slot_active", "1 while the slot is in use.", slot_);
    slot_retained_bytes = metrics_->gauge("walvault_slot_retained_bytes",
                                          "WAL that the slot holds back on the server.", slot_);
    slot_retained_limit_bytes = metrics_->gauge("walvault_slot_retained_limit_bytes",
                                                "The slot_limit of the configuration.", server_);
    slot_retained_limit_bytes.set(static_cast<double>(server.slot_limit_bytes));
    for (GovernorStep step : kGovernorSteps)
        slot_governor_[step] = metrics_->gauge(
            "walvault_slot_governor", "1 for what the agent does about slot and disk at present.",
            with(server_, "step", to_string(step)));
    set_governor_step(GovernorStep::fine);
    slot_given_up_total = metrics_->counter("walvault_slot_given_up_total",
                                            "Slots dropped because of slot_give_up.", server_);
    for (FetchResult result : kFetchResults)
        wal_fetches_total[result] =
            metrics_->counter("walvault_wal_fetches_total",
                              "Segments that wal_fetch was asked for, by how that ended.",
                              with(server_, "result", to_string(result)));
    slot_safe_wal_bytes_ = metrics_->gauge(
        "walvault_slot_safe_wal_bytes",
        "WAL the server may write before the slot is lost; NaN when there is no limit.", slot_);
    set_slot_safe_wal_bytes({});
    for (std::string_view status : kSlotStatuses)
        slot_wal_status_[std::string(status)] =
            metrics_->gauge("walvault_slot_wal_status", "1 for the status that the server reports.",
                            with(slot_, "status", status));
}

void AgentMetrics::make_store(const std::string& repo) {
    Labels labels = with(server_, "repo", repo);
    auto kind = [&](const std::string& name) {
        Kind made;
        made.logical_bytes =
            metrics_->gauge("walvault_store_logical_bytes", "What is stored, as its owner sees it.",
                            with(labels, "kind", name));
        made.stored_bytes =
            metrics_->gauge("walvault_store_stored_bytes", "What it takes in the repository.",
                            with(labels, "kind", name));
        return made;
    };
    store_base = kind("base");
    store_wal = kind("wal");
    store_chunks = metrics_->gauge("walvault_store_chunks", "Content chunks.", labels);
    auto lookups = [&](const std::string& result) {
        return metrics_->counter("walvault_store_chunk_lookups_total",
                                 "Whether a chunk of a base backup was there already.",
                                 with(labels, "result", result));
    };
    store_chunk_lookups_hit_total = lookups("hit");
    store_chunk_lookups_miss_total = lookups("miss");
    store_read_bytes_total =
        metrics_->counter("walvault_store_read_bytes_total", "Read from the repository.", labels);
    store_written_bytes_total = metrics_->counter("walvault_store_written_bytes_total",
                                                  "Written to the repository.", labels);
    for (StoreOperation operation : kOperations)
        store_errors_total[operation] =
            metrics_->counter("walvault_store_errors_total", "Failed operations.",
                              with(labels, "op", to_string(operation)));
    store_corrupt_chunks = metrics_->gauge(
        "walvault_store_corrupt_chunks",
        "What the last verify found damaged; a clean `verify --level chunks` clears it.", labels);
    store_avail_bytes =
        metrics_->gauge("walvault_store_avail_bytes", "Free space of the repository's file system.",
                        {{"repo", repo}});
    store_size_bytes = metrics_->gauge("walvault_store_size_bytes",
                                       "Size of the repository's file system.", {{"repo", repo}});
}

void AgentMetrics::make_backup(const ServerConfig& server) {
    auto gauge = [&](const std::string& name, const std::string& help) {
        return metrics_->gauge("walvault_backup_" + name, help, server_);
    };
    backup_last_success_timestamp_seconds =
        gauge("last_success_timestamp_seconds",
              "When the last complete base backup ended, Unix time; 0: never.");
    backup_last_failure_timestamp_seconds = gauge(
        "last_failure_timestamp_seconds", "When a base backup last failed, Unix time; 0: never.");
    backup_last_duration_seconds =
        gauge("last_duration_seconds", "How long the last complete base backup took.");
    backup_last_logical_bytes =
        gauge("last_logical_bytes", "Size of the last complete base backup.");
    backup_last_stored_bytes =
        gauge("last_stored_bytes", "What the last complete base backup added to the repository.");
    backup_interval_seconds = gauge(
        "interval_seconds", "How often one is wanted, from the configuration; 0: on request.");
    backup_interval_seconds.set(static_cast<double>(server.backup.every.count()));
    backup_running = gauge("running", "1 while a base backup is taken.");
    backup_done_bytes = gauge("done_bytes", "Done of the running base backup.");
    backup_expected_bytes = gauge("expected_bytes", "Expected of the running base backup.");
    auto state = [&](const std::string& name) {
        return metrics_->gauge("walvault_backups", "Base backups by state.",
                               with(server_, "state", name));
    };
    backups_complete = state("complete");
    backups_failed = state("failed");
    for (BackupFailure failure : kFailures)
        backup_failures_total[failure] =
            metrics_->counter("walvault_backup_failures_total", "Failed base backups.",
                              with(server_, "reason", to_string(failure)));
    base_page_checksum_failures_total = metrics_->counter(
        "walvault_base_page_checksum_failures_total",
        "Pages of the server that failed their checksum while a base backup read them.", server_);
}

void AgentMetrics::set_server_info(const std::string& system_identifier,
                                   const std::string& pg_version) {
    Labels labels =
        with(with(server_, "system_identifier", system_identifier), "pg_version", pg_version);
    metrics_->gauge("walvault_server_info", "Always 1; what the server is, as labels.", labels)
        .set(1);
}

void AgentMetrics::set_slot_status(const std::string& status) {
    for (auto& [name, gauge] : slot_wal_status_)
        gauge.set(name == status ? 1 : 0);
}

void AgentMetrics::set_slot_safe_wal_bytes(std::optional<std::int64_t> bytes) {
    slot_safe_wal_bytes_.set(bytes ? static_cast<double>(*bytes)
                                   : std::numeric_limits<double>::quiet_NaN());
}

AgentMetrics::StandbySlot AgentMetrics::standby_slot(const std::string& host) {
    Labels labels = with(slot_, "host", host);
    StandbySlot slot;
    slot.ready = metrics_->gauge("walvault_standby_slot_ready",
                                 "1 if the slot on this host of the conninfo is where a promotion "
                                 "needs it, or the stream's own.",
                                 labels);
    slot.retained_bytes = metrics_->gauge(
        "walvault_standby_slot_retained_bytes",
        "WAL that the slot holds back on this host while it is not streamed from.", labels);
    return slot;
}

void AgentMetrics::set_standby_slot(const std::string& host, bool ready,
                                    std::uint64_t retained_bytes) {
    StandbySlot slot = standby_slot(host);
    slot.ready.set(ready ? 1 : 0);
    slot.retained_bytes.set(static_cast<double>(retained_bytes));
}

void AgentMetrics::forget_standby_slot(const std::string& host) {
    StandbySlot slot = standby_slot(host);
    slot.ready.set(std::numeric_limits<double>::quiet_NaN());
    slot.retained_bytes.set(std::numeric_limits<double>::quiet_NaN());
}

AgentMetrics::Tier AgentMetrics::tier(const std::string& name) {
    const Labels labels = with(server_, "repo", name);
    auto gauge = [&](const std::string& what, const std::string& help) {
        return metrics_->gauge("walvault_" + what, help, labels);
    };
    Tier made;
    made.up = gauge("offload_up", "1 if the last attempt to write to this copy succeeded.");
    made.lag_bytes =
        gauge("offloaded_lag_bytes", "Upstream minus what is in this copy, taken together.");
    made.lag_seconds = gauge("offloaded_lag_seconds",
                             "How long the first byte that is not in this copy has been known of; "
                             "0 where there is none.");
    made.until_timestamp_seconds =
        gauge("offloaded_until_timestamp_seconds",
              "Newest moment that can be restored from this copy, Unix time; 0: none yet.");
    made.pending_bytes = gauge("offload_pending_bytes",
                               "In the repository and not in this copy, as of the last round.");
    made.put_bytes_total =
        metrics_->counter("walvault_offload_uploaded_bytes_total", "Written to this copy.", labels);
    made.errors_total = metrics_->counter("walvault_offload_errors_total",
                                          "Attempts to write to this copy that failed.", labels);
    return made;
}

AgentMetrics::Journal AgentMetrics::journal(const std::string& database) {
    const Labels labels = with(server_, "database", database);
    auto gauge = [&](const std::string& what, const std::string& help) {
        return metrics_->gauge("walvault_journal_" + what, help, labels);
    };
    auto counter = [&](const std::string& what, const std::string& help) {
        return metrics_->counter("walvault_journal_" + what, help, labels);
    };
    auto tables = [&](const std::string& changes) {
        return metrics_->gauge("walvault_journal_tables",
                               "Tables that the patterns select, by which of their changes are "
                               "journaled: all, inserts (they have no identity), none.",
                               with(labels, "changes", changes));
    };
    Journal made;
    made.up = gauge("up", "1 while row changes are being received.");
    made.stored_lsn_bytes =
        gauge("stored_lsn_bytes", "Every transaction that ends at or before this is stored.");
    made.last_commit_timestamp_seconds =
        gauge("last_commit_timestamp_seconds",
              "Commit time of the newest transaction stored, Unix time; 0: none since the start.");
    made.staged_bytes =
        gauge("staged_bytes", "On the disk for large transactions that are in progress.");
    made.slot_retained_bytes =
        gauge("slot_retained_bytes", "WAL that the server keeps for the journal's slot.");
    made.slot_catalog_xmin_age =
        gauge("slot_catalog_xmin_age",
              "Transactions since the oldest one whose catalogue rows VACUUM keeps for the slot.");
    made.tables = tables("all");
    made.tables_inserts_only = tables("inserts");
    made.tables_left_out = tables("none");
    made.snapshots_waiting =
        gauge("snapshots_waiting", "Tables whose rows are still to be read once.");
    made.transactions_total = counter("transactions_total", "Transactions received.");
    made.changes_total = counter("changes_total", "Row changes and truncations received.");
    made.stored_bytes_total = counter("stored_bytes_total", "Written to the journal's tails.");
    made.gaps_total = counter("gaps_total", "Gaps entered: transactions that are missing.");
    made.errors_total = counter("errors_total", "Sessions that ended by an error.");
    return made;
}

AgentMetrics::Retention AgentMetrics::retention(const std::string& repo) {
    const Labels labels = with(server_, "repo", repo);
    Retention made;
    made.window_seconds = metrics_->gauge(
        "walvault_retention_window_seconds",
        "How long every second stays there, from the configuration; 0: for ever.", labels);
    made.last_success_timestamp_seconds =
        metrics_->gauge("walvault_retention_last_success_timestamp_seconds",
                        "When retention last looked at everything, Unix time; 0: never.", labels);
    made.condemned_bytes = metrics_->gauge("walvault_retention_condemned_bytes",
                                           "Expired there and not deleted yet.", labels);
    made.freed_bytes_total = metrics_->counter("walvault_retention_freed_bytes_total",
                                               "Deleted there after it expired.", labels);
    return made;
}

void AgentMetrics::set_governor_step(GovernorStep step) {
    for (auto& [each, gauge] : slot_governor_)
        gauge.set(each == step ? 1 : 0);
}

void AgentMetrics::set_history_incidents(const std::map<HistoryIncident, std::uint64_t>& counts) {
    for (const auto& [incident, count] : counts) {
        std::uint64_t& seen = history_incidents_[incident];
        if (count > seen) history_incidents_total_[incident].add(static_cast<double>(count - seen));
        seen = std::max(seen, count);
    }
}

void AgentMetrics::sync_log_counts() {
    for (auto& [level, counter] : log_messages_total_) {
        std::uint64_t written = log::written_count(level);
        std::uint64_t& seen = log_counts_[level];
        if (written > seen) counter.add(static_cast<double>(written - seen));
        seen = written;
    }
}

}  // namespace walvault::agent
