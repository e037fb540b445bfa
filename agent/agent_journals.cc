// The row journals of the configuration: one for each database, beside everything else.
#include <nlohmann/json.hpp>

#include "agent/agent_state.h"
#include "agent/control.h"

namespace walvault::agent {
namespace {

using nlohmann::json;

std::string_view name_of(wal::Journaled journaled) {
    switch (journaled) {
        case wal::Journaled::all_changes:
            return "all";
        case wal::Journaled::inserts_only:
            return "inserts";
        case wal::Journaled::left_out:
            return "none";
    }
    return "none";
}

json json_of(const wal::TableVerdict& verdict) {
    return {{"table", verdict.table},
            {"changes", name_of(verdict.journaled)},
            {"reason", verdict.reason},
            {"mend", verdict.mend}};
}

}  // namespace

void make_journals(AgentState& state) {
    const JournalCapture::Services services{
        .executor = state.executor,
        .cpu = state.pools.cpu,
        .store = state.pools.store,
        .repository = *state.repository,
        .clock = state.clock,
        .cluster = [&state] { return state.capture.cluster(); },
    };
    for (const std::string& database : state.server.journal.databases)
        state.journals.push_back(std::make_unique<JournalCapture>(services, state.server,
                                                                  state.config.classes, database,
                                                                  state.metrics.journal(database)));
}

json journal_json(const JournalStatus& status) {
    json body{{"database", status.database},
              {"slot", status.slot},
              {"connected", status.connected},
              {"stored_lsn", to_string(status.stored_lsn)},
              {"transactions", status.transaction_count},
              {"changes", status.change_count},
              {"staged_bytes", status.staged_bytes},
              {"waiting_snapshots", status.waiting_snapshots},
              {"tables", json::array()}};
    if (status.last_commit_at != WallTime{})
        body["last_commit_at"] = to_utc_text(status.last_commit_at);
    if (!status.snapshot_of.empty()) body["snapshot_of"] = status.snapshot_of;
    for (const wal::TableVerdict& verdict : status.verdicts)
        body["tables"].push_back(json_of(verdict));
    if (status.slot_facts) {
        body["slot_retained_bytes"] = status.slot_facts->retained_bytes;
        body["slot_wal_status"] = status.slot_facts->wal_status;
        body["slot_catalog_xmin_age"] = status.slot_facts->catalog_xmin_age;
    }
    if (status.error) body["error"] = agent::json_of(*status.error);
    return body;
}

std::map<std::string, std::uint64_t> synced_tails(const AgentState& state) {
    std::map<std::string, std::uint64_t> tails = state.capture.synced_tails();
    for (const auto& journal : state.journals)
        tails.merge(journal->synced_tails());
    return tails;
}

}  // namespace walvault::agent
