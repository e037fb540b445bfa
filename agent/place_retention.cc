#include "agent/place_retention.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/blocking.h"
#include "base/log.h"
#include "storage/read_back.h"
#include "storage/tier_store.h"

namespace walvault::agent {

TierState* tier_at(AgentState& state, const std::string& place) {
    for (const auto& tier : state.tiers)
        if (tier->config.name == place) return tier.get();
    return nullptr;
}

namespace {

// Who holds something at the place: there, or on this host, from where it is read as well.
Task<Result<std::vector<storage::Lease>>> leases_at(AgentState& state, const std::string& place) {
    auto look = [config = state.config, place,
                 now = state.clock.now()]() -> Result<std::vector<storage::Lease>> {
        auto here = storage::make_directory_store(posix_file_system(), config.repo.root);
        WV_TRY(auto leases, storage::valid_leases(*here, now));
        if (place.empty()) return leases;
        WV_TRY(const TierConfig* tier, config.tier(place));
        WV_TRY(auto there, storage::open_tier_objects(posix_file_system(), tier->place()));
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

// How far a tier that is reached has got.
struct Reached {
    TierConfig config;
    std::uint64_t ledger_sequence = 0;
};

// The next few packs that tiers keep, of those that have got so far. Empty: none.
Result<std::vector<Unproved>> next_unproved(storage::Repository& repository, WallTime due,
                                            const std::vector<Reached>& reached,
                                            const std::set<std::string>& seen) {
    std::vector<Unproved> found;
    WV_CHECK(repository.each_condemned("", [&](storage::CondemnedThere& each) {
        if (each.kept_at.empty() || each.at > due || seen.contains(each.pack.path())) return true;
        Unproved next;
        for (const std::string& place : each.kept_at)
            for (const Reached& tier : reached)
                if (tier.config.name == place && tier.ledger_sequence >= each.sequence)
                    next.tiers.push_back(tier.config);
        if (next.tiers.size() < each.kept_at.size()) return true;
        next.condemned = std::move(each);
        found.push_back(std::move(next));
        return found.size() < kDeletedAtOnce;
    }));
    return found;
}

Result<> prove(const Config& config, const Unproved& pack) {
    auto here = storage::make_directory_store(posix_file_system(), config.repo.root);
    for (const TierConfig& tier : pack.tiers) {
        WV_TRY(auto there, storage::open_tier_objects(posix_file_system(), tier.place()));
        WV_CHECK(storage::read_back(*here, *there, pack.condemned.pack, random_number()));
    }
    return {};
}

// Adds to `proved` what is due here and lies on every tier that keeps it; to `seen` all that was
// looked at. False when there is no more.
Task<Result<bool>> prove_some(AgentState& state, std::chrono::seconds grace,
                              std::set<std::string>& seen,
                              std::map<std::string, std::vector<std::string>>& proved) {
    std::vector<Reached> reached;
    for (const auto& tier : state.tiers)
        if (tier->up) reached.push_back({tier->config, tier->ledger_sequence});
    auto look = [&state, due = state.clock.now() - grace, reached, &seen] {
        return next_unproved(*state.repository, due, reached, seen);
    };
    WV_CO_TRY(const auto packs, co_await run_on(state.pools.expire, std::move(look)));
    for (const Unproved& pack : packs) {
        if (state.stopping) co_return false;
        const std::string& path = pack.condemned.pack.path();
        seen.insert(path);
        auto work = [config = state.config, pack] { return prove(config, pack); };
        auto done = co_await run_on(state.pools.expire, std::move(work));
        if (done) proved[path] = pack.condemned.kept_at;
        if (!done)
            log::error("retention.not_proved", done.error().message,
                       {{"pack", path}, {"hint", done.error().hint}});
    }
    co_return !packs.empty();
}

}  // namespace

Task<Result<>> delete_due(AgentState& state, const DueDeletion& due, PlaceRetention& at,
                          ExpireReport& report) {
    const ExpirePlace& place = due.place;
    storage::DeletionOrder order{.place = place.name,
                                 .leases = {},
                                 .grace = place.grace,
                                 .most = kDeletedAtOnce,
                                 .only_kept_elsewhere = due.only_kept_elsewhere};
    WV_CO_TRY(order.leases, co_await leases_at(state, place.name));
    if (const TierState* tier = tier_at(state, place.name))
        order.through_sequence = tier->ledger_sequence;
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

// --- what is mostly dead
// ----------------------------------------------------------------------

namespace {

// Only what is entered counts: whatever ends it before leaves the old packs as they are.
Task<Result<>> copy_live_chunks(AgentState& state,
                                const std::vector<storage::RewriteCandidate>& sources) {
    auto begin = [&state, &sources] { return state.repository->begin_rewrite(sources); };
    WV_CO_TRY(auto rewrite, co_await run_on(state.pools.store, std::move(begin)));
    auto copy = [&rewrite]() -> Result<> {
        auto copied = rewrite->copy();
        if (!copied) rewrite.reset();
        return copied;
    };
    WV_CO_CHECK(co_await run_on(state.pools.expire, std::move(copy)));
    auto enter = [&state, &rewrite] { return state.repository->enter_rewrite(std::move(rewrite)); };
    co_return co_await run_on(state.pools.store, std::move(enter));
}

}  // namespace

Task<> rewrite_packs(AgentState& state, const storage::RetentionSurvey& survey,
                     ExpireReport& report) {
    report.rewritten_packs = report.rewritten_dead_bytes = 0;
    for (const auto& group : storage::rewrite_groups(survey.rewrites)) {
        if (state.stopping || state.backup.running) co_return;
        auto done = co_await copy_live_chunks(state, group);
        if (done) add_rewritten(report, group);
        if (!done) warn_not_rewritten(group, done.error());
    }
}

// --- when the disk is short of room --------------------------------------------------------------

std::vector<std::chrono::seconds> narrower_windows(std::chrono::seconds window,
                                                   std::chrono::seconds stored) {
    std::vector<std::chrono::seconds> narrower;
    auto next = window.count() == 0 ? stored : std::min(window, stored);
    for (next /= 2; next >= kNarrowestWindow; next /= 2)
        narrower.push_back(next);
    return narrower;
}

std::uint64_t needed_room(const AgentState& state) {
    if (!state.config.repo.evict_below_ratio) return 0;
    const auto wanted = static_cast<std::uint64_t>(static_cast<double>(state.store_size_bytes) *
                                                   *state.config.repo.evict_below_ratio);
    return wanted > state.store_available_bytes ? wanted - state.store_available_bytes : 0;
}

namespace {

// Whether one of the copies keeps everything that would go.
Result<bool> is_kept_by_one(storage::Repository& repository, const storage::RetentionSurvey& survey,
                            const std::vector<std::string>& tiers) {
    for (const std::string& tier : tiers) {
        bool all = true;
        for (const pb::Condemned& entry : survey.condemned()) {
            for (const pb::CondemnedBackup& base : entry.backups()) {
                if (!all) break;
                WV_TRY(bool gone,
                       repository.is_base_condemned(survey.cluster, base.backup_id(), tier));
                all = !gone;
            }
            for (const pb::CondemnedPack& pack : entry.packs()) {
                if (!all) break;
                WV_TRY(all, repository.keeps(pack.pack(), tier));
            }
        }
        if (all) return true;
    }
    return false;
}

// What a look for relief needs, apart from the loop.
struct ReliefWanted {
    Config config;
    std::string cluster;
    std::uint64_t needed = 0;
    std::chrono::seconds stored{0};
    std::vector<std::string> tiers;  // that are reached
};

// By the widest window under which enough goes, else the narrowest that a copy covers.
Result<std::optional<storage::RetentionSurvey>> choose_relief(storage::Repository& repository,
                                                              const ReliefWanted& wanted) {
    std::optional<storage::RetentionSurvey> chosen;
    // A copy would take room first.
    ExpirePlace place{"", wanted.config.repo.retention, std::chrono::seconds(0)};
    place.rewrites = false;
    for (auto window : narrower_windows(place.rules.window, wanted.stored)) {
        place.rules.window = window;
        WV_TRY(auto survey, survey_repository(wanted.config, wanted.cluster, place));
        WV_TRY(bool kept, is_kept_by_one(repository, survey, wanted.tiers));
        if (!kept) break;
        const std::uint64_t frees = report_of(survey, system_clock().now()).condemned_bytes;
        if (frees > 0) chosen = std::move(survey);
        if (frees >= wanted.needed) break;
    }
    return chosen;
}

}  // namespace

Task<Result<ExpireReport>> relieve_disk(AgentState& state, PlaceRetention& at) {
    if (state.backups.empty()) co_return fail(Errc::unavailable, "nothing is stored yet");
    ExpireReport report;
    report.at = state.clock.now();
    // What is on its way already comes first: to look for more reads every manifest.
    const DueDeletion due{.place = {"", {}, std::chrono::seconds(0)}, .only_kept_elsewhere = true};
    WV_CO_CHECK(co_await delete_due(state, due, at, report));
    if (report.deleted_packs > 0 || report.waiting_packs > 0) co_return report;
    const WallTime first(Micros(state.backups.front().stopped_at_us()));
    ReliefWanted wanted{.config = state.config,
                        .cluster = state.server.name,
                        .needed = needed_room(state),
                        .stored = std::chrono::duration_cast<std::chrono::seconds>(
                            state.progress.recoverable_until() - first),
                        .tiers = {}};
    for (const auto& tier : state.tiers)
        if (tier->up && tier->is_place) wanted.tiers.push_back(tier->config.name);
    auto look = [&repository = *state.repository, wanted = std::move(wanted)] {
        return choose_relief(repository, wanted);
    };
    WV_CO_TRY(auto survey, co_await run_on(state.pools.expire, std::move(look)));
    if (!survey) co_return report;
    report = report_of(*survey, state.clock.now());
    report.waiting_packs = report.condemned_packs;
    report.waiting_bytes = report.condemned_bytes;
    auto condemn = [&state, &survey] { return state.repository->condemn(*survey); };
    WV_CO_CHECK(co_await run_on(state.pools.store, std::move(condemn)));
    co_return report;
}

}  // namespace walvault::agent
