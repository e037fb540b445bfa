#include "agent/metrics_catalogue.h"

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <sstream>

namespace walvault::agent {
namespace {

bool has_line(const std::string& text, const std::string& line) {
    return text.find('\n' + line + '\n') != std::string::npos;
}

TEST_CASE("Every series exists from the start, thresholds with their value") {
    Metrics metrics;
    ServerConfig server{.name = "main"};
    AgentMetrics agent(metrics, server, "primary");
    std::string text = '\n' + metrics.exposition();
    CHECK(has_line(text, "walvault_rpo_target_seconds{server=\"main\"} 5"));
    CHECK(has_line(text, "walvault_recoverable_gaps{repo=\"primary\",server=\"main\"} 0"));
    CHECK(has_line(text, "walvault_stream_disconnects_total{reason=\"fork\",server=\"main\"} 0"));
    CHECK(has_line(
        text, "walvault_slot_wal_status{server=\"main\",slot=\"walvault\",status=\"lost\"} 0"));
    CHECK(has_line(text, "walvault_slot_retained_limit_bytes{server=\"main\"} 21474836480"));
    CHECK(has_line(text, "walvault_slot_safe_wal_bytes{server=\"main\",slot=\"walvault\"} Nan"));
}

// The contract: dashboards and rules are written against these names. One more is one more line
// here.
constexpr std::string_view kMeant = R"(counter walvault_backup_failures_total reason,server
counter walvault_base_page_checksum_failures_total server
counter walvault_history_incidents_total kind,repo,server
counter walvault_journal_changes_total database,server
counter walvault_journal_errors_total database,server
counter walvault_journal_gaps_total database,server
counter walvault_journal_stored_bytes_total database,server
counter walvault_journal_transactions_total database,server
counter walvault_log_messages_total level
counter walvault_retention_freed_bytes_total repo,server
counter walvault_slot_given_up_total server
counter walvault_store_chunk_lookups_total repo,result,server
counter walvault_store_errors_total op,repo,server
counter walvault_store_read_bytes_total repo,server
counter walvault_store_written_bytes_total repo,server
counter walvault_stream_connects_total server
counter walvault_stream_disconnects_total reason,server
counter walvault_stream_received_bytes_total server
counter walvault_wal_fetches_total result,server
gauge walvault_acknowledged_lag_bytes server
gauge walvault_acknowledged_lag_seconds server
gauge walvault_acknowledged_lsn_bytes server
gauge walvault_backup_done_bytes server
gauge walvault_backup_expected_bytes server
gauge walvault_backup_interval_seconds server
gauge walvault_backup_last_duration_seconds server
gauge walvault_backup_last_failure_timestamp_seconds server
gauge walvault_backup_last_logical_bytes server
gauge walvault_backup_last_stored_bytes server
gauge walvault_backup_last_success_timestamp_seconds server
gauge walvault_backup_running server
gauge walvault_backups server,state
gauge walvault_build_info version
gauge walvault_clock_offset_seconds server
gauge walvault_closed_lag_bytes server
gauge walvault_closed_lag_seconds server
gauge walvault_closed_lsn_bytes server
gauge walvault_config_last_reload_success_timestamp_seconds
gauge walvault_config_last_reload_successful
gauge walvault_durable_lag_bytes server
gauge walvault_durable_lag_seconds server
gauge walvault_durable_lsn_bytes server
gauge walvault_histories repo,server
gauge walvault_journal_last_commit_timestamp_seconds database,server
gauge walvault_journal_slot_catalog_xmin_age database,server
gauge walvault_journal_slot_retained_bytes database,server
gauge walvault_journal_snapshots_waiting database,server
gauge walvault_journal_staged_bytes database,server
gauge walvault_journal_stored_lsn_bytes database,server
gauge walvault_journal_tables changes,database,server
gauge walvault_journal_up database,server
gauge walvault_received_lsn_bytes server
gauge walvault_recoverable_from_timestamp_seconds repo,server
gauge walvault_recoverable_gaps repo,server
gauge walvault_recoverable_until_timestamp_seconds repo,server
gauge walvault_retention_condemned_bytes repo,server
gauge walvault_retention_last_success_timestamp_seconds repo,server
gauge walvault_retention_window_seconds repo,server
gauge walvault_rpo_target_seconds server
gauge walvault_server_info pg_version,server,system_identifier
gauge walvault_server_timeline server
gauge walvault_slot_active server,slot
gauge walvault_slot_governor server,step
gauge walvault_slot_retained_bytes server,slot
gauge walvault_slot_retained_limit_bytes server
gauge walvault_slot_safe_wal_bytes server,slot
gauge walvault_slot_wal_status server,slot,status
gauge walvault_store_avail_bytes repo
gauge walvault_store_chunks repo,server
gauge walvault_store_corrupt_chunks repo,server
gauge walvault_store_logical_bytes kind,repo,server
gauge walvault_store_size_bytes repo
gauge walvault_store_stored_bytes kind,repo,server
gauge walvault_stream_connected server
gauge walvault_stream_last_message_timestamp_seconds server
gauge walvault_stream_synchronous server
gauge walvault_upstream_lsn_bytes server
gauge walvault_written_lsn_bytes server
histogram walvault_commit_durable_seconds server
histogram walvault_flush_duration_seconds repo,server
)";

// "type name label,label" of each family of the exposition, sorted; `le` is the histograms' own.
std::string families(const std::string& exposition) {
    std::map<std::string, std::string> types;
    std::map<std::string, std::set<std::string>> labels;
    std::istringstream lines(exposition);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string hash, kind, name, type;
        if (line.starts_with("# TYPE walvault_")) {
            words >> hash >> kind >> name >> type;
            types[name] = type;
        }
        std::size_t open = line.find('{');
        if (!line.starts_with("walvault_") || open == std::string::npos) continue;
        name = line.substr(0, open);
        for (const char* suffix : {"_bucket", "_sum", "_count"})
            if (name.ends_with(suffix)) name.resize(name.size() - std::strlen(suffix));
        for (std::size_t at = open; at < line.size() && line[at] != '}';) {
            std::size_t equals = line.find('=', at);
            std::string label = line.substr(at + 1, equals - at - 1);
            if (label != "le") labels[name].insert(label);
            at = line.find('"', equals + 2) + 1;
        }
    }
    std::set<std::string> found;
    for (const auto& [name, type] : types) {
        std::string joined;
        for (const std::string& label : labels[name])
            joined += (joined.empty() ? " " : ",") + label;
        found.insert(type + " " + name + joined + "\n");
    }
    return std::accumulate(found.begin(), found.end(), std::string());
}

TEST_CASE("The exported metrics are exactly those that are meant") {
    Metrics metrics;
    ServerConfig server{.name = "main"};
    AgentMetrics agent(metrics, server, "primary");
    agent.set_server_info("7", "150018");
    agent.retention("primary");
    agent.journal("app");
    CHECK(families(metrics.exposition()) == kMeant);
}

TEST_CASE("A counter kept elsewhere is raised to its total and never falls") {
    Metrics metrics;
    Counter counter = metrics.counter("test_total", "A test.");
    counter.raise_to(5);
    counter.raise_to(3);
    counter.raise_to(7);
    CHECK(metrics.exposition().find("\ntest_total 7\n") != std::string::npos);
}

TEST_CASE("The slot has one status at a time, and none when it is gone") {
    Metrics metrics;
    ServerConfig server{.name = "main"};
    AgentMetrics agent(metrics, server, "primary");
    agent.set_slot_status("extended");
    std::string text = '\n' + metrics.exposition();
    CHECK(has_line(
        text, "walvault_slot_wal_status{server=\"main\",slot=\"walvault\",status=\"extended\"} 1"));
    agent.set_slot_status("");
    CHECK(metrics.exposition().find("status=\"extended\"} 0") != std::string::npos);
}

TEST_CASE("Log lines are counted once") {
    Metrics metrics;
    ServerConfig server{.name = "main"};
    AgentMetrics agent(metrics, server, "primary");
    log::set_level(log::Level::off);
    agent.sync_log_counts();
    auto count = [&] {
        std::string text = metrics.exposition();
        std::string start = "walvault_log_messages_total{level=\"warn\"} ";
        return std::stod(text.substr(text.find(start) + start.size()));
    };
    double before = count();
    log::warn("test.line", "counted");
    agent.sync_log_counts();
    agent.sync_log_counts();
    log::set_level(log::Level::info);
    CHECK(count() == before + 1);
}

}  // namespace
}  // namespace walvault::agent
