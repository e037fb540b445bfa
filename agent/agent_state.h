// What the parts of the agent share, and what they tell of it.
#pragma once

#include <atomic>
#include <nlohmann/json_fwd.hpp>

#include "agent/agent.h"
#include "agent/backup_schedule.h"
#include "agent/base_backup_job.h"
#include "agent/capture.h"
#include "agent/control.h"
#include "agent/expire.h"
#include "agent/hold.h"
#include "agent/journal_capture.h"
#include "agent/slot_governor.h"
#include "base/secret.h"
#include "storage/offloader.h"
#include "storage/repository_files.h"
#include "wal/server_facts.h"

namespace walvault::agent {

// The base backup that runs, and how the last one ended.
struct BackupState {
    std::unique_ptr<BaseBackupJob> running;
    std::uint64_t started_count = 0;
    std::optional<pb::BackupInfo> last;
    std::optional<Error> last_error;
    BackupSchedule schedule;
};

// A server of the conninfo, and the slot on it as of the last look.
struct StandbyState {
    std::string name;  // "b:5432"
    wal::ServerAddress address;
    bool streamed = false;  // its slot is the stream's
    bool ready = false;     // a promotion would find there what it needs
    std::optional<Lsn> restart_lsn;
    std::uint64_t retained_bytes = 0;
    std::string problem;  // why it is not ready
    bool made = false;    // by this process: gone afterwards, somebody removes it
    int failures = 0;     // looks in a row at which it was not ready
    std::string warned_of;
    Backoff backoff{std::chrono::seconds(5), std::chrono::seconds(15), random_number()};
    SteadyTime look_at{};
};

// A copy of the repository that the agent keeps up, [repo.NAME].
struct TierState {
    TierConfig config;
    AgentMetrics::Tier metrics;
    // Of its own: one that hangs holds up nothing else.
    Pool pool{1};
    std::unique_ptr<storage::ObjectStore> repository;
    std::unique_ptr<storage::ObjectStore> objects;
    // Since the snapshot of the round that runs more WAL was flushed, and commits wait for copies.
    std::atomic<bool> has_newer{false};
    std::unique_ptr<storage::Offloader> offloader;
    Backoff backoff{std::chrono::seconds(1), std::chrono::seconds(30), random_number()};
    bool up = false;
    bool ended = false;          // nothing is put there any more
    std::optional<Error> error;  // of the last attempt
    Lsn round_lsn;               // flushed when the last round began
    // As of the last complete round.
    Id16 history{};
    Lsn offloaded_lsn;
    WallTime offloaded_until{};
    std::uint64_t pending_bytes = 0;
    std::uint64_t ledger_sequence = 0;  // of the last entry that it has
    bool is_place = false;              // the ledger speaks of it
};

// Retention at one place, and how its last pass ended.
struct PlaceRetention {
    std::string place;  // a tier; empty: the repository's directory
    AgentMetrics::Retention metrics;
    std::string judged;  // RetentionSurvey::judged of the last pass
    std::optional<ExpireReport> last;
    std::optional<Error> last_error;
};
struct RetentionState {
    bool running = false;
    std::vector<PlaceRetention> places;  // the directory first
    SteadyTime next_relief{};            // when the disk is next looked at for evict_below
};

struct AgentState {
    AgentState(LeaderLoop& loop, const Globals& chosen, Config configured,
               const ServerConfig& served, std::unique_ptr<storage::Repository> opened);

    asio::any_io_executor executor;
    Globals globals;
    Config config;
    ServerConfig server;
    const Clock& clock = system_clock();
    Pools pools;
    std::unique_ptr<storage::Repository> repository;
    Metrics registry;
    AgentMetrics metrics;
    Progress progress;
    Capture capture;
    BackupState backup;
    RetentionState retention;
    std::optional<wal::SlotFacts> slot;
    SlotGovernor governor;
    GovernorStep governor_step = GovernorStep::fine;
    wal::Hangup watch_hangup;             // of the connection that looks at the slot
    std::vector<StandbyState> standbys;   // all servers of the conninfo, where it names several
    wal::Hangup standby_hangup;           // of the connections to them
    std::vector<pb::BackupInfo> backups;  // complete ones, as of the last look
    std::vector<storage::HistoryRecord> histories;
    std::vector<pb::GapFound> gaps;
    storage::RepositoryView::Totals totals;
    std::uint64_t store_available_bytes = 0;  // of its file system, as of the last look
    std::uint64_t store_size_bytes = 0;
    std::vector<std::unique_ptr<TierState>> tiers;
    unsigned object_lanes = 0;  // of all tiers: packs that may be on their way at once
    std::vector<std::unique_ptr<JournalCapture>> journals;  // by database
    bool stopping = false;
    bool drained = false;  // nothing new is stored any more
    Event changed;         // stopping, or a backup was asked for or ended
    TaskGroup tasks;
    std::unique_ptr<HttpServer> http;
    SteadyTime loop_turned_at{};
};

nlohmann::json status_json(const AgentState& state);
nlohmann::json backup_json(const AgentState& state);
nlohmann::json retention_json(const AgentState& state);
// Where the oldest base ended from which everything later can be restored, at whichever place.
WallTime recoverable_from(const AgentState& state, WallTime first_base_stopped);
nlohmann::json json_of(const pb::BackupInfo& backup);

// Answers GET /metrics /livez /readyz /v1/status /v1/backup /v1/expire, and from the socket
// POST /v1/backup /v1/expire /v1/restore-done /v1/verify-done.
Task<HttpResponse> answer(AgentState& state, HttpRequest request);

// Starts a base backup unless one runs. Errors: busy; unavailable while nothing is streamed yet.
Result<> start_backup(AgentState& state, BackupRequest request);
// Takes base backups when they are due, until stopping.
Task<> keep_backups(AgentState& state);
// Begins a pass of retention unless one runs. Errors: busy; refused where no window is set.
Result<> start_retention(AgentState& state);
// Not while retention is at work. The id of the hold is returned. Errors: busy while retention is
// at work; as check_hold(), require_holdable() and Repository::place_hold().
Task<Result<std::string>> place_hold(AgentState& state, HoldWanted wanted);
Task<Result<std::string>> release_hold(AgentState& state, std::string id, std::string reason,
                                       std::string actor);
// A pass every hour and after each base backup while a window is set, until stopping.
Task<> keep_retention(AgentState& state);
// Says that the loop turns, to systemd's watchdog and /livez, until stopping. Waits for nothing
// else.
Task<> keep_alive(AgentState& state);
// Looks at the store every few seconds, until stopping.
Task<> keep_facts(AgentState& state);
// Looks at the slot every few seconds, until stopping, and does what SlotGovernor decides. A server
// that does not answer is given up and asked again over a new connection.
Task<> keep_slot_facts(AgentState& state);
// Keeps the slot ready on those servers of the conninfo that are not streamed from, until stopping.
Task<> keep_standby_slots(AgentState& state);
// Makes state.tiers of the configuration. Errors: those of the repository; nothing is asked of the
// tiers yet.
Result<> make_tiers(AgentState& state);
// Keeps a copy of the repository up, until stopping and once more when all is stored; tries again
// after an error. Nothing else waits for it.
Task<> keep_tier(AgentState& state, TierState& tier);
// Has a round of it end that does nothing but wait while commits wait for newer WAL.
Task<> watch_newest(AgentState& state, TierState& tier);
// Ends what still waits for the copy some time after all is stored.
Task<> cut_tier_short(AgentState& state, TierState& tier);
// Makes state.journals of the configuration.
void make_journals(AgentState& state);
nlohmann::json journal_json(const JournalStatus& status);
// Of WAL and journals, what the ledger opens and does not end yet: path, and end of the last synced
// frame.
std::map<std::string, std::uint64_t> synced_tails(const AgentState& state);
// How far a copy is behind the server.
struct TierLag {
    std::uint64_t bytes = 0;
    SteadyTime::duration time{};
};
TierLag lag_of(const AgentState& state, const TierState& tier);
// Until a stream begins, or the slot is to be looked at again, or stopping.
Task<> wait_for_slot_news(AgentState& state);
// Reads what the index knows of backups, gaps and sizes.
Task<> refresh_facts(AgentState& state);

// Protocol of systemd's sd_notify; nothing where NOTIFY_SOCKET is not set.
void notify_systemd(const std::string& text);

}  // namespace walvault::agent
