// The row journals of the configuration: one for each database, beside everything else.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/agent_state.h"
#include "agent/control.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

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

SortedJson json_of(const wal::TableVerdict& verdict) {
    return {{"table", verdict.table},
            {"changes", name_of(verdict.journaled)},
            {"reason", verdict.reason},
            {"mend", verdict.mend}};
}

// Nobody reads from the slot of a database that is not configured any more: it holds back WAL until
// the server's disk is full.
void warn_of_left_slots(AgentState& state) {
    auto journals = state.repository->journals(state.server.name);
    if (!journals) return;
    const std::vector<std::string>& databases = state.server.journal.databases;
    std::set<std::string> told;
    for (const storage::JournalRecord& journal : *journals) {
        const bool is_read =
            std::find(databases.begin(), databases.end(), journal.database) != databases.end() &&
            journal.slot == journal_slot_name(state.server.journal.slot, journal.database);
        if (is_read || !told.insert(journal.slot).second) continue;
        log::warn("journal.not_configured",
                  "a database that was journaled is not any more: its slot, if it is still there, "
                  "keeps WAL on the server for ever",
                  {{"database", journal.database},
                   {"slot", journal.slot},
                   {"hint", "SELECT pg_drop_replication_slot('" + journal.slot +
                                "'); and DROP PUBLICATION there"}});
    }
}

}  // namespace

void make_journals(AgentState& state) {
    warn_of_left_slots(state);
    const JournalCapture::Services services{
        .executor = state.executor,
        .cpu = state.pools.cpu,
        .store = state.pools.store,
        .repository = *state.repository,
        .clock = state.clock,
        .ground = [&state]() -> std::optional<JournalGround> {
            const auto& history = state.progress.history();
            if (!state.capture.is_settled() || !history || !state.capture.cluster())
                return std::nullopt;
            return JournalGround{*state.capture.cluster(), history->id, history->timeline};
        },
    };
    for (const std::string& database : state.server.journal.databases)
        state.journals.push_back(std::make_unique<JournalCapture>(services, state.server,
                                                                  state.config.classes, database,
                                                                  state.metrics.journal(database)));
}

SortedJson journal_json(const JournalStatus& status) {
    SortedJson body{{"database", status.database},
                    {"slot", status.slot},
                    {"connected", status.connected},
                    {"stored_lsn", to_string(status.stored_lsn)},
                    {"transactions", status.transaction_count},
                    {"changes", status.change_count},
                    {"staged_bytes", status.staged_bytes},
                    {"waiting_snapshots", status.waiting_snapshots},
                    {"tables", SortedJson::array()}};
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
