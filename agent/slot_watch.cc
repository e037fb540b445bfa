// The slot on the server, looked at every few seconds: what it holds is told, judged, and acted on.
#include "agent/agent_state.h"
#include "base/log.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kWatchEvery{5};
constexpr std::chrono::seconds kSlotAnswer{10};
// A walsender that was left may need a moment to let go of the slot.
constexpr int kDropTriesMax = 40;

void publish_slot(AgentState& state) {
    if (!state.slot) return;
    state.metrics.slot_active.set(state.slot->active ? 1 : 0);
    state.metrics.slot_retained_bytes.set(static_cast<double>(state.slot->retained_bytes));
    state.metrics.set_slot_status(state.slot->exists ? state.slot->wal_status : "");
    state.metrics.set_slot_safe_wal_bytes(state.slot->safe_wal_bytes);
}

Task<Result<wal::SlotFacts>> look_at_slot(AgentState& state,
                                          std::unique_ptr<wal::Connection>& sql) {
    if (!sql) {
        state.watch_hangup = wal::Hangup();
        wal::Connection::Options options;
        options.conninfo = state.server.conninfo;
        // With several servers in conninfo another one could answer than the one that is streamed.
        if (state.capture.connected()) options.only = state.capture.identity()->address;
        options.application_name = "walvault watch";
        options.hangup = state.watch_hangup;
        WV_CO_TRY(sql, co_await wal::Connection::connect(std::move(options)));
    }
    WV_CO_CHECK(wal::server_version_of(*sql));
    const wal::Silence silence(state.executor, state.watch_hangup, kSlotAnswer);
    co_return co_await wal::slot_facts(*sql, state.server.slot);
}

// A commit that waits must not wait for a timer here; one that waits for "apply" waits for ever.
void heed_waiting_commits(AgentState& state, const wal::SlotFacts& now) {
    state.capture.set_synchronous(now.is_waited_for());
    state.metrics.stream_synchronous.set(now.is_waited_for() ? 1 : 0);
    const bool never = now.is_waited_for() && now.synchronous_commit == "remote_apply";
    const bool was = state.slot && state.slot->is_waited_for() &&
                     state.slot->synchronous_commit == "remote_apply";
    if (never && !was)
        log::error(
            "server.remote_apply",
            "synchronous_commit is remote_apply and the server waits for this agent, which applies "
            "nothing: commits hang",
            {{"hint", "ALTER SYSTEM SET synchronous_commit = 'on'; SELECT pg_reload_conf();"}});
}

// What the last look at the slot says that somebody must hear of; once for each change.
void warn_of_slot(const wal::SlotFacts& now, const std::optional<wal::SlotFacts>& before,
                  const ServerConfig& server) {
    if (now.wal_status == "lost" && (!before || before->wal_status != "lost"))
        log::error("slot.lost", "the server has invalidated the slot; WAL may be missing",
                   {{"slot", server.slot}});
}

Verdict judge(AgentState& state, const wal::SlotFacts& slot) {
    SlotLook look;
    look.at = state.clock.steady_now();
    look.exists = slot.exists;
    look.retained_bytes = slot.retained_bytes;
    look.safe_bytes = slot.safe_wal_bytes;
    look.store_available_bytes = state.store_available_bytes;
    look.store_size_bytes = state.store_size_bytes;
    SlotLimits limits;
    limits.warn_bytes = state.server.slot_limit_bytes;
    limits.give_up_bytes = state.server.slot_give_up_bytes;
    limits.reserve_ratio = state.config.repo.reserve_ratio;
    return state.governor.decide(look, limits);
}

void tell_step(AgentState& state, const Verdict& verdict) {
    const GovernorStep before = std::exchange(state.governor_step, verdict.step);
    state.metrics.set_governor_step(verdict.step);
    if (verdict.step == before) return;
    auto tell = [&](log::Level level, std::string_view event, const std::string& sentence) {
        log::write(level, event, sentence, {{"slot", state.server.slot}});
    };
    if (verdict.step == GovernorStep::fine)
        tell(log::Level::info, "slot.fine", "slot and disk are within their limits again");
    if (verdict.step == GovernorStep::warn)
        tell(log::Level::warn, "slot.retains_wal", verdict.reason);
    if (verdict.step == GovernorStep::spill)
        tell(log::Level::warn, "store.reserve_in_use",
             verdict.reason + ": what is left is for WAL, base backups stop");
    if (verdict.step == GovernorStep::give_up)
        tell(log::Level::error, "slot.giving_up", verdict.reason);
}

// The server holds no WAL for a slot that is gone; what that costs is found at the next attachment.
// Needs nothing of the repository, which may be what does not answer.
Task<> give_up_slot(AgentState& state, wal::Connection& sql, std::string reason) {
    state.capture.stay_away(true);
    auto dropped = co_await wal::drop_slot_by_sql(sql, state.server.slot);
    for (int tries = 1;
         !dropped && dropped.error().code == Errc::busy && tries < kDropTriesMax && !state.stopping;
         ++tries) {
        co_await wait_for(state.changed, 250ms);
        dropped = co_await wal::drop_slot_by_sql(sql, state.server.slot);
    }
    if (dropped) {
        state.metrics.slot_given_up_total.add();
        state.capture.note_given_up("the slot was given up: " + reason);
        log::error("slot.given_up", "the slot was dropped: " + reason,
                   {{"slot", state.server.slot},
                    {"flushed_lsn", to_string(state.progress.flushed_lsn())}});
    } else {
        log::error("slot.not_given_up", dropped.error().message, {{"slot", state.server.slot}});
    }
    state.capture.stay_away(false);
}

Task<> govern(AgentState& state, wal::Connection& sql, const wal::SlotFacts& slot) {
    const Verdict verdict = judge(state, slot);
    tell_step(state, verdict);
    if (verdict.step == GovernorStep::spill && state.backup.running)
        state.backup.running->give_way(verdict.reason);
    if (verdict.step == GovernorStep::give_up) co_await give_up_slot(state, sql, verdict.reason);
}

}  // namespace

// A stream that has just begun may be one that commits wait for: then the next look is at once.
Task<> wait_for_slot_news(AgentState& state) {
    const SteadyTime next = state.clock.steady_now() + kWatchEvery;
    const std::uint64_t attachments = state.capture.attachment_count();
    while (!state.stopping && state.clock.steady_now() < next &&
           state.capture.attachment_count() == attachments)
        co_await wait_for(state.changed, 250ms);
}

Task<> keep_slot_facts(AgentState& state) {
    std::unique_ptr<wal::Connection> sql;
    while (!state.stopping) {
        auto slot = co_await look_at_slot(state, sql);
        if (slot) {
            warn_of_slot(*slot, state.slot, state.server);
            heed_waiting_commits(state, *slot);
            state.slot = *slot;
            publish_slot(state);
            co_await govern(state, *sql, *slot);
        }
        // Not kept open: a smart shutdown of the server waits for ordinary sessions.
        sql.reset();
        co_await wait_for_slot_news(state);
    }
}

}  // namespace walvault::agent
