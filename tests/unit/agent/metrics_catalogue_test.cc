#include "agent/metrics_catalogue.h"

#include <doctest/doctest.h>

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
