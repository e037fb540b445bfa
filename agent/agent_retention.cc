#include <algorithm>

#include "agent/agent_state.h"
#include "base/blocking.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kFirstPass{60};
constexpr std::chrono::hours kPassEvery{1};

Task<Result<ExpireReport>> pass(AgentState& state) {
    auto look = [config = state.config, cluster = state.server.name,
                 judged = state.retention.judged] {
        return survey_repository(config, cluster, judged);
    };
    auto looked = co_await run_on(state.pools.expire, std::move(look));
    if (!looked) co_return fail(looked.error());
    const storage::RetentionSurvey survey = std::move(*looked);
    ExpireReport report = report_of(survey, state.clock.now());
    auto condemn = [&state, &survey] { return state.repository->condemn(survey); };
    WV_CO_CHECK(co_await run_on(state.pools.store, std::move(condemn)));
    state.retention.judged = survey.judged;
    for (bool more = true; more && !state.stopping;) {
        auto remove = [&state] {
            return state.repository->delete_condemned(state.config.repo.expire_grace,
                                                      kDeletedAtOnce);
        };
        WV_CO_TRY(storage::Deletions done, co_await run_on(state.pools.store, std::move(remove)));
        add_deletions(report, done);
        state.metrics.retention_freed_bytes_total.add(static_cast<double>(done.bytes));
        more = done.more;
    }
    co_return report;
}

void publish(AgentState& state, const ExpireReport& report) {
    state.retention.last = report;
    state.retention.last_error.reset();
    state.metrics.retention_last_success_timestamp_seconds.set(to_seconds(report.at));
    state.metrics.retention_condemned_bytes.set(static_cast<double>(report.waiting_bytes));
    if (report.condemned_packs + report.condemned_bases + report.deleted_packs == 0) return;
    log::info("retention.done", "what expired was condemned, what was condemned before deleted",
              {{"condemned_bases", report.condemned_bases},
               {"condemned_packs", report.condemned_packs},
               {"condemned_bytes", report.condemned_bytes},
               {"deleted_packs", report.deleted_packs},
               {"freed_bytes", report.freed_bytes}});
}

Task<> run_retention(AgentState& state) {
    auto done = co_await pass(state);
    if (done) {
        publish(state, *done);
    } else {
        state.retention.last_error = done.error();
        log::warn("retention.not_done", done.error().message, {{"hint", done.error().hint}});
    }
    state.retention.running = false;
    co_await refresh_facts(state);
    state.changed.notify();
}

}  // namespace

Result<> start_retention(AgentState& state) {
    if (state.stopping) return fail(Errc::unavailable, "the agent is ending");
    WV_CHECK(require_window(state.config.repo));
    if (state.retention.running) return fail(Errc::busy, "retention runs already");
    state.retention.running = true;
    state.tasks.spawn(run_retention(state));
    return {};
}

Task<> keep_retention(AgentState& state) {
    SteadyTime next = state.clock.steady_now() + kFirstPass;
    std::string newest;
    while (!state.stopping) {
        co_await wait_for(state.changed, 1s);
        state.metrics.retention_window_seconds.set(
            static_cast<double>(state.config.repo.retention.window.count()));
        if (state.config.repo.retention.window.count() == 0 || state.backup.running) continue;
        const std::string last = state.backup.last ? state.backup.last->backup_id() : "";
        if (state.clock.steady_now() < next && last == newest) continue;
        if (auto started = start_retention(state); !started) continue;
        newest = last;
        next = state.clock.steady_now() + kPassEvery;
    }
}

}  // namespace walvault::agent
