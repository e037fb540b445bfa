#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "agent/agent_state.h"
#include "base/blocking.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kWatchEvery{5};

struct StoreFacts {
    std::vector<pb::BackupInfo> backups;
    std::vector<storage::HistoryRecord> histories;
    std::vector<pb::GapFound> gaps;
    storage::RepositoryView::Totals totals;
    storage::Repository::Troubles troubles;
    std::uint64_t available_bytes = 0;
    std::uint64_t size_bytes = 0;
};

Result<StoreFacts> look_at_store(storage::Repository& repository, const std::string& cluster) {
    StoreFacts facts;
    WV_TRY(facts.backups, repository.backups(cluster));
    WV_TRY(facts.gaps, repository.gaps(cluster));
    WV_TRY(facts.histories, repository.histories(cluster));
    WV_TRY(facts.totals, repository.totals(cluster));
    WV_TRY(facts.troubles, repository.troubles(cluster));
    struct statvfs status {};
    if (::statvfs(repository.root().c_str(), &status) == 0) {
        facts.available_bytes = static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
        facts.size_bytes = static_cast<std::uint64_t>(status.f_blocks) * status.f_frsize;
    }
    return facts;
}

// As a promotion leaves commits behind that only the old primary had sent.
bool left_something_behind(const storage::HistoryRecord& record,
                           const std::vector<storage::HistoryRecord>& known) {
    if (record.cause != pb::HistoryOpened::PROMOTION || !record.parent) return false;
    return std::any_of(known.begin(), known.end(), [&](const storage::HistoryRecord& each) {
        return each.id == *record.parent && each.end_lsn > record.fork_lsn;
    });
}

std::map<HistoryIncident, std::uint64_t> incidents_of(const StoreFacts& facts) {
    std::map<HistoryIncident, std::uint64_t> counts;
    counts[HistoryIncident::gap] = facts.gaps.size();
    for (const storage::HistoryRecord& record : facts.histories) {
        if (record.cause == pb::HistoryOpened::FORK) ++counts[HistoryIncident::fork];
        if (record.cause == pb::HistoryOpened::UNRELATED) ++counts[HistoryIncident::unrelated];
        if (left_something_behind(record, facts.histories)) ++counts[HistoryIncident::orphan];
    }
    return counts;
}

void publish_store(AgentState& state, const StoreFacts& facts) {
    AgentMetrics& metrics = state.metrics;
    metrics.store_wal.logical_bytes.set(static_cast<double>(facts.totals.wal_plain_bytes));
    metrics.store_wal.stored_bytes.set(static_cast<double>(facts.totals.wal_stored_bytes));
    std::uint64_t logical = 0;
    for (const pb::BackupInfo& backup : facts.backups)
        logical += backup.plain_bytes();
    metrics.store_base.logical_bytes.set(static_cast<double>(logical));
    metrics.store_base.stored_bytes.set(static_cast<double>(facts.totals.base_stored_bytes));
    metrics.store_chunks.set(static_cast<double>(facts.totals.chunk_count));
    metrics.store_avail_bytes.set(static_cast<double>(facts.available_bytes));
    metrics.store_size_bytes.set(static_cast<double>(facts.size_bytes));
    metrics.histories.set(static_cast<double>(facts.histories.size()));
    metrics.set_history_incidents(incidents_of(facts));
    metrics.recoverable_gaps.set(static_cast<double>(facts.gaps.size()));
    metrics.backups_complete.set(static_cast<double>(facts.backups.size()));
    metrics.backups_failed.set(static_cast<double>(facts.troubles.failed_backups));
    metrics.store_corrupt_chunks.set(static_cast<double>(facts.troubles.damaged));
    // One that failed before it had a name is in memory only.
    metrics.backup_last_failure_timestamp_seconds.set(
        std::max(metrics.backup_last_failure_timestamp_seconds.value(),
                 to_seconds(facts.troubles.last_failed_backup)));
    if (facts.backups.empty()) return;
    const WallTime first(Micros(facts.backups.front().stopped_at_us()));
    metrics.recoverable_from_timestamp_seconds.set(to_seconds(recoverable_from(state, first)));
    const pb::BackupInfo& last = facts.backups.back();
    metrics.backup_last_success_timestamp_seconds.set(static_cast<double>(last.stopped_at_us()) /
                                                      1e6);
    metrics.backup_last_duration_seconds.set(
        static_cast<double>(last.stopped_at_us() - last.started_at_us()) / 1e6);
    metrics.backup_last_logical_bytes.set(static_cast<double>(last.plain_bytes()));
    metrics.backup_last_stored_bytes.set(static_cast<double>(last.stored_bytes()));
}

bool backup_due(const AgentState& state) {
    if (state.backup.running || !state.capture.connected() || !state.progress.history())
        return false;
    const auto last_started =
        newest_base_started(*state.progress.history(), state.histories, state.backups, state.gaps);
    return state.backup.schedule.due(state.clock.steady_now(), state.clock.now(), last_started,
                                     state.server.backup.every);
}

Task<> run_backup(AgentState& state, BackupRequest request) {
    auto taken = co_await state.backup.running->run(std::move(request));
    if (taken) {
        state.backup.last = *taken;
        state.backup.last_error.reset();
        state.backup.schedule.note_complete();
        state.backups.push_back(*taken);
    } else {
        state.backup.last_error = taken.error();
        state.backup.schedule.note_failed(state.clock.steady_now());
    }
    state.backup.running.reset();
    co_await refresh_facts(state);
    state.changed.notify();
}

// `changed` also tells of other things; the next look is when it is due.
Task<> wait_for_next_look(AgentState& state) {
    SteadyTime next = state.clock.steady_now() + kWatchEvery;
    while (!state.stopping && state.clock.steady_now() < next)
        co_await wait_for(state.changed, next - state.clock.steady_now());
}

}  // namespace

Result<> start_backup(AgentState& state, BackupRequest request) {
    if (state.stopping) return fail(Errc::unavailable, "the agent is ending");
    if (state.backup.running)
        return fail(Errc::busy, "a base backup is running already",
                    "`walvault status` shows how far it is");
    if (!state.capture.connected() || !state.progress.history() || !state.capture.cluster()) {
        Error error{Errc::unavailable,
                    "the WAL stream is not running, and a base backup is worth nothing without it",
                    "try again in a moment"};
        if (const auto& failure = state.capture.last_failure()) {
            error.hint = failure->message;
            error.origin = failure->origin;
        }
        return fail(std::move(error));
    }
    ++state.backup.started_count;
    state.backup.running = std::make_unique<BaseBackupJob>(
        state.executor, state.pools, *state.repository, state.progress, state.metrics, state.clock,
        state.server, state.config.repo, *state.capture.cluster(),
        state.capture.identity()->address);
    state.tasks.spawn(run_backup(state, std::move(request)));
    return {};
}

Task<> keep_backups(AgentState& state) {
    co_await refresh_facts(state);
    while (!state.stopping) {
        co_await wait_for(state.changed, 500ms);
        if (state.stopping || !backup_due(state)) continue;
        BackupRequest request;
        // The first one is what makes anything restorable: it does not wait for a spread
        // checkpoint.
        request.fast_checkpoint = state.server.backup.fast_checkpoint || state.backups.empty();
        (void)start_backup(state, std::move(request));
    }
}

Task<> refresh_facts(AgentState& state) {
    auto look = [&state] { return look_at_store(*state.repository, state.server.name); };
    auto facts = co_await run_on(state.pools.store, std::move(look));
    if (!facts) {
        log::error("store.unreadable", facts.error().message);
        state.metrics.store_errors_total.at(StoreOperation::index).add();
        co_return;
    }
    state.backups = facts->backups;
    state.gaps = facts->gaps;
    state.histories = facts->histories;
    state.totals = facts->totals;
    state.store_available_bytes = facts->available_bytes;
    state.store_size_bytes = facts->size_bytes;
    publish_store(state, *facts);
}

Task<> keep_alive(AgentState& state) {
    SteadyTime next{};
    while (!state.stopping) {
        state.loop_turned_at = state.clock.steady_now();
        if (state.loop_turned_at >= next) {
            next = state.loop_turned_at + kWatchEvery;
            notify_systemd("WATCHDOG=1\nSTATUS=" +
                           std::string(state.capture.connected() ? "streaming, flushed "
                                                                 : "not connected, flushed ") +
                           to_string(state.progress.flushed_lsn()));
        }
        co_await wait_for(state.changed, 1s);
    }
}

Task<> keep_facts(AgentState& state) {
    while (!state.stopping) {
        co_await refresh_facts(state);
        co_await wait_for_next_look(state);
    }
}

void notify_systemd(const std::string& text) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::size_t length = std::strlen(path);
    if (length >= sizeof address.sun_path) return;
    std::memcpy(address.sun_path, path, length);
    if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
    int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    // Losing one is harmless: systemd hears the next.
    (void)::sendto(fd, text.data(), text.size(), MSG_NOSIGNAL,
                   reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
    ::close(fd);
}

}  // namespace walvault::agent
