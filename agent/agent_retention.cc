#include <algorithm>
#include <set>

#include "agent/agent_state.h"
#include "base/blocking.h"
#include "base/log.h"
#include "storage/read_back.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kFirstPass{60};
constexpr std::chrono::hours kPassEvery{1};

TierState* tier_at(AgentState& state, const std::string& place) {
    for (const auto& tier : state.tiers)
        if (tier->config.name == place) return tier.get();
    return nullptr;
}

// Who holds something at the place: there, or on this host, from where it is read as well.
Task<Result<std::vector<storage::Lease>>> leases_at(AgentState& state, const std::string& place) {
    auto look = [config = state.config, place,
                 now = state.clock.now()]() -> Result<std::vector<storage::Lease>> {
        auto here = storage::make_directory_store(posix_file_system(), config.repo.root);
        WV_TRY(auto leases, storage::valid_leases(*here, now));
        if (place.empty()) return leases;
        WV_TRY(const TierConfig* tier, config.tier(place));
        WV_TRY(auto there, storage::open_tier_objects(posix_file_system(), tier->url));
        WV_TRY(auto further, storage::valid_leases(*there, now));
        // A reader of the tier knows as much of the ledger as the tier has: what was condemned
        // before he began may be in his sight.
        for (storage::Lease& lease : further)
            lease.since = {};
        leases.insert(leases.end(), further.begin(), further.end());
        return leases;
    };
    co_return co_await run_on(state.pools.expire, std::move(look));
}

// A pack that is due in the directory, and where it must be first.
struct Unproved {
    storage::CondemnedThere condemned;
    std::vector<TierConfig> tiers;
};

// The next few packs that tiers keep, of those that have got so far. Empty: none.
Result<std::vector<Unproved>> next_unproved(AgentState& state, std::chrono::seconds grace,
                                            const std::set<std::string>& seen) {
    WV_TRY(auto condemned, state.repository->condemned(""));
    std::vector<Unproved> found;
    for (storage::CondemnedThere& each : condemned) {
        if (found.size() == kDeletedAtOnce) break;
        if (each.kept_at.empty() || each.at + grace > state.clock.now() ||
            seen.contains(each.pack.path()))
            continue;
        Unproved next{std::move(each), {}};
        bool all = true;
        for (const std::string& place : next.condemned.kept_at) {
            const TierState* tier = tier_at(state, place);
            all = all && tier != nullptr && tier->up &&
                  tier->ledger_sequence >= next.condemned.sequence;
            if (all) next.tiers.push_back(tier->config);
        }
        if (all) found.push_back(std::move(next));
    }
    return found;
}

Result<> prove(const Config& config, const Unproved& pack) {
    auto here = storage::make_directory_store(posix_file_system(), config.repo.root);
    for (const TierConfig& tier : pack.tiers) {
        WV_TRY(auto there, storage::open_tier_objects(posix_file_system(), tier.url));
        WV_CHECK(storage::read_back(*here, *there, pack.condemned.pack, random_number()));
    }
    return {};
}

// Adds to `proved` what is due here and lies on every tier that keeps it; to `seen` all that was
// looked at. False when there is no more.
Task<Result<bool>> prove_some(AgentState& state, std::chrono::seconds grace,
                              std::set<std::string>& seen, std::set<std::string>& proved) {
    WV_CO_TRY(const auto packs, next_unproved(state, grace, seen));
    for (const Unproved& pack : packs) {
        if (state.stopping) co_return false;
        const std::string& path = pack.condemned.pack.path();
        seen.insert(path);
        auto work = [config = state.config, pack] { return prove(config, pack); };
        auto done = co_await run_on(state.pools.expire, std::move(work));
        if (done) proved.insert(path);
        if (!done)
            log::error("retention.not_proved", done.error().message,
                       {{"pack", path}, {"hint", done.error().hint}});
    }
    co_return !packs.empty();
}

Task<Result<>> delete_due(AgentState& state, const ExpirePlace& place, PlaceRetention& at,
                          ExpireReport& report) {
    storage::DeletionOrder order{
        .place = place.name, .leases = {}, .grace = place.grace, .most = kDeletedAtOnce};
    WV_CO_TRY(order.leases, co_await leases_at(state, place.name));
    std::set<std::string> seen;
    for (bool more = true; more && !state.stopping;) {
        bool proves = false;
        if (place.name.empty() && !state.tiers.empty()) {
            order.proved.clear();
            WV_CO_TRY(proves, co_await prove_some(state, place.grace, seen, order.proved));
        }
        auto remove = [&state, &order] { return state.repository->delete_condemned(order); };
        WV_CO_TRY(storage::Deletions done, co_await run_on(state.pools.store, std::move(remove)));
        add_deletions(report, done);
        at.metrics.freed_bytes_total.add(static_cast<double>(done.bytes));
        more = done.more || proves;
    }
    co_return Result<>{};
}

Task<Result<ExpireReport>> pass(AgentState& state, const ExpirePlace& place, PlaceRetention& at) {
    const TierState* tier = tier_at(state, place.name);
    if (!place.name.empty() && (tier == nullptr || !tier->is_place))
        co_return fail(Errc::unavailable, "it has not been reached yet");
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
    WV_CO_CHECK(co_await delete_due(state, place, at, report));
    co_return report;
}

std::string repo_name(const PlaceRetention& at) { return at.place.empty() ? "primary" : at.place; }

void publish(PlaceRetention& at, const ExpireReport& report) {
    at.last = report;
    at.last_error.reset();
    at.metrics.last_success_timestamp_seconds.set(to_seconds(report.at));
    at.metrics.condemned_bytes.set(static_cast<double>(report.waiting_bytes));
    if (report.condemned_packs + report.condemned_bases + report.deleted_packs == 0) return;
    log::info("retention.done", "what expired was condemned, what was condemned before deleted",
              {{"repo", repo_name(at)},
               {"condemned_bases", report.condemned_bases},
               {"condemned_packs", report.condemned_packs},
               {"condemned_bytes", report.condemned_bytes},
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

Task<> keep_retention(AgentState& state) {
    SteadyTime next = state.clock.steady_now() + kFirstPass;
    std::string newest;
    while (!state.stopping) {
        co_await wait_for(state.changed, 1s);
        publish_windows(state);
        if (expire_places(state.config).empty() || state.backup.running) continue;
        const std::string last = state.backup.last ? state.backup.last->backup_id() : "";
        if (state.clock.steady_now() < next && last == newest) continue;
        if (auto started = start_retention(state); !started) continue;
        newest = last;
        next = state.clock.steady_now() + kPassEvery;
    }
}

}  // namespace walvault::agent
