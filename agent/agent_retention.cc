#include <algorithm>

#include "agent/agent_state.h"
#include "agent/place_retention.h"
#include "base/blocking.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kFirstPass{60};
constexpr std::chrono::hours kPassEvery{1};
constexpr std::chrono::seconds kReliefEvery{5};
constexpr std::chrono::seconds kReliefInVain{600};

// The old packs hold nothing that is needed any more: a look of its own says so, by what was
// entered.
Task<Result<>> rewrite(AgentState& state, ExpirePlace place, const storage::RetentionSurvey& survey,
                       ExpireReport& report) {
    co_await rewrite_packs(state, survey, report);
    if (report.rewritten_packs == 0) co_return Result<>{};
    place.rewrites = false;
    auto look = [config = state.config, cluster = state.server.name, place] {
        return survey_repository(config, cluster, place);
    };
    auto again = co_await run_on(state.pools.expire, std::move(look));
    if (!again) co_return fail(again.error());
    auto condemn = [&state, &again] { return state.repository->condemn(*again); };
    auto condemned = co_await run_on(state.pools.store, std::move(condemn));
    // Something changed meanwhile, as where a base backup has begun: the next pass finds them too.
    if (!condemned && condemned.error().code == Errc::busy) co_return Result<>{};
    if (condemned) add_condemned(report, *again);
    co_return condemned;
}

Task<Result<ExpireReport>> pass(AgentState& state, ExpirePlace place, PlaceRetention& at) {
    const TierState* tier = tier_at(state, place.name);
    if (!place.name.empty() && (tier == nullptr || !tier->is_place))
        co_return fail(Errc::unavailable, "it has not been reached yet");
    // The copies would only gather in the directory.
    if (tier != nullptr && !tier->up) place.rewrites = false;
    auto look = [config = state.config, cluster = state.server.name, place, judged = at.judged] {
        return survey_repository(config, cluster, place, judged);
    };
    auto looked = co_await run_on(state.pools.expire, std::move(look));
    if (!looked) co_return fail(looked.error());
    const storage::RetentionSurvey survey = std::move(*looked);
    ExpireReport report = report_of(survey, state.clock.now());
    auto condemn = [&state, &survey] { return state.repository->condemn(survey); };
    WV_CO_CHECK(co_await run_on(state.pools.store, std::move(condemn)));
    at.judged = survey.judged;
    if (!survey.rewrites.empty()) WV_CO_CHECK(co_await rewrite(state, place, survey, report));
    const DueDeletion due{.place = place};
    WV_CO_CHECK(co_await delete_due(state, due, at, report));
    co_return report;
}

std::string repo_name(const PlaceRetention& at) { return at.place.empty() ? "primary" : at.place; }

void publish(PlaceRetention& at, const ExpireReport& report) {
    at.last = report;
    at.last_error.reset();
    at.metrics.last_success_timestamp_seconds.set(to_seconds(report.at));
    at.metrics.condemned_bytes.set(static_cast<double>(report.waiting_bytes));
    if (report.condemned_packs + report.condemned_bases + report.rewritten_packs +
            report.deleted_packs ==
        0)
        return;
    log::info("retention.done", "what expired was condemned, what was condemned before deleted",
              {{"repo", repo_name(at)},
               {"condemned_bases", report.condemned_bases},
               {"condemned_packs", report.condemned_packs},
               {"condemned_bytes", report.condemned_bytes},
               {"rewritten_packs", report.rewritten_packs},
               {"deleted_packs", report.deleted_packs},
               {"freed_bytes", report.freed_bytes}});
}

Task<> run_retention(AgentState& state) {
    for (const ExpirePlace& place : expire_places(state.config)) {
        auto at = std::ranges::find(state.retention.places, place.name, &PlaceRetention::place);
        if (at == state.retention.places.end() || state.stopping) continue;
        auto done = co_await pass(state, place, *at);
        if (done) {
            publish(*at, *done);
        } else {
            at->last_error = done.error();
            log::warn("retention.not_done", done.error().message,
                      {{"repo", repo_name(*at)}, {"hint", done.error().hint}});
        }
    }
    state.retention.running = false;
    co_await refresh_facts(state);
    state.changed.notify();
}

// The directory's disk is short of room: what a copy keeps goes before its time.
Task<> run_relief(AgentState& state) {
    PlaceRetention& at = state.retention.places.front();
    auto done = co_await relieve_disk(state, at);
    const bool found = done && done->deleted_packs + done->waiting_packs > 0;
    state.retention.next_relief = state.clock.steady_now() + (found ? kReliefEvery : kReliefInVain);
    if (done) {
        at.judged.clear();
        publish(at, *done);
    } else {
        log::warn("retention.no_relief", done.error().message, {{"hint", done.error().hint}});
    }
    state.retention.running = false;
    co_await refresh_facts(state);
    state.changed.notify();
}

void publish_windows(AgentState& state) {
    for (PlaceRetention& at : state.retention.places)
        at.metrics.window_seconds.set(0);
    for (const ExpirePlace& place : expire_places(state.config)) {
        auto at = std::ranges::find(state.retention.places, place.name, &PlaceRetention::place);
        if (at != state.retention.places.end())
            at->metrics.window_seconds.set(static_cast<double>(place.rules.window.count()));
    }
}

}  // namespace

Result<> start_retention(AgentState& state) {
    if (state.stopping) return fail(Errc::unavailable, "the agent is ending");
    WV_CHECK(require_window(state.config));
    if (state.retention.running) return fail(Errc::busy, "retention runs already");
    state.retention.running = true;
    state.tasks.spawn(run_retention(state));
    return {};
}

namespace {

// Retention and orders to keep something never work at the same time: what the one has looked at,
// the other does not change.
template <class Work>
Task<Result<std::string>> without_retention(AgentState& state, Work work) {
    if (state.stopping) co_return fail(Errc::unavailable, "the agent is ending");
    if (state.retention.running) co_return fail(Errc::busy, "retention is at work");
    state.retention.running = true;
    auto done = co_await work();
    state.retention.running = false;
    state.changed.notify();
    co_return done;
}

}  // namespace

Task<Result<std::string>> place_hold(AgentState& state, HoldWanted wanted) {
    WV_CO_CHECK(check_hold(wanted, state.clock.now()));
    auto work = [&state, &wanted]() -> Task<Result<std::string>> {
        auto look = [config = state.config, cluster = state.server.name, &wanted] {
            return require_holdable(config, cluster, wanted);
        };
        WV_CO_CHECK(co_await run_on(state.pools.expire, std::move(look)));
        auto enter = [&state, &wanted] {
            return state.repository->place_hold(placed_of(state.server.name, wanted), wanted.actor);
        };
        co_return co_await run_on(state.pools.store, std::move(enter));
    };
    co_return co_await without_retention(state, std::move(work));
}

Task<Result<std::string>> release_hold(AgentState& state, std::string id, std::string reason,
                                       std::string actor) {
    WV_CO_CHECK(check_reason(reason));
    pb::HoldReleased released;
    released.set_cluster(state.server.name);
    released.set_hold_id(id);
    released.set_reason(reason);
    auto work = [&]() -> Task<Result<std::string>> {
        auto enter = [&] { return state.repository->release_hold(released, actor); };
        WV_CO_CHECK(co_await run_on(state.pools.store, std::move(enter)));
        co_return id;
    };
    co_return co_await without_retention(state, std::move(work));
}

Task<> keep_retention(AgentState& state) {
    SteadyTime next = state.clock.steady_now() + kFirstPass;
    std::string newest;
    while (!state.stopping) {
        co_await wait_for(state.changed, 1s);
        publish_windows(state);
        if (needed_room(state) > 0 && state.clock.steady_now() >= state.retention.next_relief &&
            !state.backup.running && !state.retention.running) {
            state.retention.running = true;
            state.tasks.spawn(run_relief(state));
            continue;
        }
        if (expire_places(state.config).empty() || state.backup.running) continue;
        const std::string last = state.backup.last ? state.backup.last->backup_id() : "";
        if (state.clock.steady_now() < next && last == newest) continue;
        if (auto started = start_retention(state); !started) continue;
        newest = last;
        next = state.clock.steady_now() + kPassEvery;
    }
}

}  // namespace walvault::agent
