// The slot on the servers of the conninfo that are not streamed from: looked after every few
// seconds.
#include "agent/agent_state.h"
#include "agent/standby_slot.h"
#include "base/log.h"
#include "wal/conninfo.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kLookEvery{10};
constexpr std::chrono::seconds kPatience{15};  // for all that one look asks
constexpr std::string_view kRemovedHint =
    "Patroni removes slots that it does not know: name this one in ignore_slots";

// Nothing while no server has been found to continue what is stored.
std::optional<StoredPosition> stored_position(const AgentState& state) {
    if (!state.capture.connected() || !state.progress.history() ||
        !state.progress.acknowledged_lsn())
        return std::nullopt;
    const wal::ServerIdentity& identity = *state.capture.identity();
    return StoredPosition{.system_identifier = identity.system.system_identifier,
                          .timeline = state.progress.history()->timeline,
                          .acknowledged_lsn = state.progress.acknowledged_lsn(),
                          .segment_bytes = identity.segment_bytes,
                          .from_standby = identity.in_recovery};
}

struct Visit {
    std::unique_ptr<wal::Connection> sql;
    std::unique_ptr<wal::Connection> walsender;
    std::string slot;

    Task<Result<wal::StandbyFacts>> facts() { return wal::standby_facts(*sql, *walsender, slot); }
    Task<Result<>> make_slot(bool renew) {
        if (renew) WV_CO_CHECK(co_await wal::drop_slot(*walsender, slot));
        co_return co_await wal::create_physical_slot(*walsender, slot);
    }
};

Task<Result<Visit>> visit(AgentState& state, const StandbyState& standby) {
    wal::Connection::Options options;
    options.conninfo = state.server.conninfo;
    options.application_name = "walvault standby";
    options.only = standby.address;
    options.hangup = state.standby_hangup;
    Visit made;
    made.slot = state.server.slot;
    WV_CO_TRY(made.sql, co_await wal::Connection::connect(options));
    options.mode = wal::Connection::Mode::physical_replication;
    WV_CO_TRY(made.walsender, co_await wal::Connection::connect(options));
    co_return made;
}

void note_made(const AgentState& state, StandbyState& standby) {
    const bool again = std::exchange(standby.made, true);
    log::write(again ? log::Level::warn : log::Level::info, "standby.slot_made",
               again ? "the slot on a standby had been removed, and was made again"
                     : "the slot was made on a standby, too",
               {{"host", standby.name},
                {"slot", state.server.slot},
                {"hint", again ? kRemovedHint : std::string_view()}});
}

// A server that restarts, or changes its role, is not there for a moment: only what lasts is worth
// a warning, and once.
void note_problem(StandbyState& standby, const std::string& problem, const std::string& hint) {
    if (problem.empty() || ++standby.failures < 2 || problem == standby.warned_of) return;
    log::warn("standby.not_ready", problem, {{"host", standby.name}, {"hint", hint}});
    standby.warned_of = problem;
}

// Does what the standby needs; the answer is why it is not ready, or nothing.
Task<Result<std::string>> bring_up(AgentState& state, StandbyState& standby,
                                   const StoredPosition& stored) {
    WV_CO_TRY(Visit there, co_await visit(state, standby));
    WV_CO_TRY(wal::StandbyFacts facts, co_await there.facts());
    StandbyStep step = next_step(stored, facts);
    if (auto* make = std::get_if<MakeSlot>(&step)) {
        WV_CO_CHECK(co_await there.make_slot(make->renew));
        note_made(state, standby);
        WV_CO_TRY(facts, co_await there.facts());
        step = next_step(stored, facts);
    }
    if (facts.slot) standby.restart_lsn = facts.slot->restart_lsn;
    if (auto* advance = std::get_if<AdvanceSlot>(&step)) {
        WV_CO_TRY(standby.restart_lsn,
                  co_await wal::advance_slot(*there.sql, there.slot, advance->to));
    }
    standby.retained_bytes = standby.restart_lsn && facts.replayed_lsn > *standby.restart_lsn
                                 ? facts.replayed_lsn - *standby.restart_lsn
                                 : 0;
    auto* leave = std::get_if<LeaveSlot>(&step);
    if (leave && leave->second_primary && leave->reason != standby.problem)
        log::error(
            "server.two_primaries",
            "two servers of the conninfo are primaries: what one of them commits is not stored",
            {{"streamed", wal::to_string(state.capture.identity()->address)},
             {"other", standby.name}});
    co_return leave ? leave->reason : std::string();
}

Task<> look_after(AgentState& state, StandbyState& standby, const StoredPosition& stored) {
    standby.streamed = wal::same_server(state.capture.identity()->address, standby.address);
    std::string problem;
    if (standby.streamed) {
        standby.restart_lsn.reset();
        standby.retained_bytes = 0;
        // Made by the stream: nothing was removed if it is missing later.
        standby.made = false;
    } else {
        const wal::Silence silence(state.executor, state.standby_hangup, kPatience);
        auto done = co_await bring_up(state, standby, stored);
        if (state.stopping) co_return;
        if (state.standby_hangup.hung_up()) state.standby_hangup = wal::Hangup();
        problem = done ? *done : done.error().message;
        note_problem(standby, problem, done ? std::string() : done.error().hint);
    }
    standby.ready = problem.empty();
    standby.problem = std::move(problem);
    if (standby.ready) {
        standby.backoff.reset();
        standby.failures = 0;
        standby.warned_of.clear();
    }
    standby.look_at = state.clock.steady_now() +
                      (standby.ready ? Backoff::Duration(kLookEvery) : standby.backoff.next());
    state.metrics.set_standby_slot(standby.name, standby.ready, standby.retained_bytes);
}

std::vector<StandbyState> servers_of_conninfo(const std::string& conninfo) {
    wal::Connection::Options options;
    options.conninfo = conninfo;
    std::vector<StandbyState> found;
    auto settings = wal::connect_settings(options);
    if (!settings) return found;
    const auto servers = wal::servers_of(*settings);
    if (servers.size() == 1) return found;
    for (const wal::ServerAddress& address : servers) {
        StandbyState standby;
        standby.name = wal::to_string(address);
        standby.address = address;
        found.push_back(std::move(standby));
    }
    return found;
}

}  // namespace

Task<> keep_standby_slots(AgentState& state) {
    auto servers = servers_of_conninfo(state.server.conninfo);
    if (servers.empty()) co_return;
    std::uint64_t attachments = 0;
    while (!state.stopping) {
        if (!state.server.standby_slots) {
            for (const StandbyState& standby : state.standbys)
                state.metrics.forget_standby_slot(standby.name);
            state.standbys.clear();
        } else if (state.standbys.empty()) {
            state.standbys = servers;
        }
        // A stream that has just begun may have moved from one of them to another.
        const bool moved = std::exchange(attachments, state.capture.attachment_count()) !=
                           state.capture.attachment_count();
        for (StandbyState& standby : state.standbys) {
            auto stored = stored_position(state);
            if (state.stopping || !stored) break;
            if (moved || state.clock.steady_now() >= standby.look_at)
                co_await look_after(state, standby, *stored);
        }
        co_await wait_for_slot_news(state);
    }
}

}  // namespace walvault::agent
