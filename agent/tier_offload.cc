// The copies of the repository: what is durable here goes there, round by round.
#include <algorithm>

#include "agent/agent_state.h"
#include "agent/open_view.h"
#include "base/blocking.h"
#include "base/log.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// A round ends after so long where there is much to do, and the newest WAL goes first in the next
// one.
constexpr std::chrono::seconds kRoundMax{1};
constexpr std::chrono::seconds kLastRoundsMax{20};
constexpr std::chrono::milliseconds kSoon{100};
constexpr int kSnapshotTries = 5;
// Of a request to a bucket. What takes longer is told of, and a later round tries again.
constexpr std::chrono::seconds kRetryFor{15};

struct Moment {
    storage::OffloadSnapshot snapshot;
    bool is_exact = false;  // nothing was entered while it was taken
    Id16 history{};
    Lsn flushed_lsn;
    WallTime recoverable_until{};
};

// The ledger belongs to the pools and the tails to the loop: a ledger that is the same before and
// after is the one of that moment. The earlier one is never ahead of the tails.
Task<Moment> take_moment(AgentState& state, TierState& tier) {
    auto look = [&state] { return state.repository->ledger_sequence(); };
    Moment moment;
    moment.snapshot.ledger_sequence = co_await run_on(tier.pool, look);
    for (int tries = 1;; ++tries) {
        tier.has_newer = false;
        tier.round_lsn = state.progress.flushed_lsn();
        moment.snapshot.tails = synced_tails(state);
        moment.flushed_lsn = state.progress.flushed_lsn();
        moment.recoverable_until = state.progress.recoverable_until();
        if (state.progress.history()) moment.history = state.progress.history()->id;
        const std::uint64_t after = co_await run_on(tier.pool, look);
        moment.is_exact = after == moment.snapshot.ledger_sequence;
        if (moment.is_exact || tries == kSnapshotTries) co_return moment;
        moment.snapshot.ledger_sequence = after;
    }
}

void note_failure(TierState& tier, const Error& error) {
    tier.metrics.errors_total.add();
    tier.metrics.up.set(0);
    if (tier.up || !tier.error || tier.error->message != error.message)
        log::error("offload.failed", error.message,
                   {{"repo", tier.config.name}, {"hint", error.hint}});
    tier.up = false;
    tier.error = error;
}

void note_round(TierState& tier, const Moment& moment, const storage::Offloader::Round& round) {
    tier.pending_bytes = round.pending_bytes;
    tier.ledger_sequence = round.ledger_sequence;
    tier.metrics.put_bytes_total.add(static_cast<double>(round.put_bytes));
    if (round.failure) return note_failure(tier, *round.failure);
    // Packs are on their way, and nobody knows yet how that ends.
    if (!round.is_reached) return;
    if (!tier.up)
        log::info("offload.up", "the copy is reached and is being kept up",
                  {{"repo", tier.config.name}, {"url", tier.config.url}});
    tier.up = true;
    tier.error.reset();
    tier.backoff.reset();
    tier.metrics.up.set(1);
    if (!round.is_complete || !moment.is_exact) return;
    tier.history = moment.history;
    tier.offloaded_lsn = moment.flushed_lsn;
    tier.offloaded_until = moment.recoverable_until;
}

// From here on nothing goes in the directory that is not there yet, unless it is not to be kept.
Task<Result<>> add_place(AgentState& state, TierState& tier) {
    auto look = [&tier] { return tier.offloader->is_empty(); };
    WV_CO_TRY(const bool is_empty, co_await run_on(tier.pool, std::move(look)));
    auto add = [&state, &tier, is_empty] {
        return state.repository->add_place(tier.config.name, is_empty);
    };
    WV_CO_CHECK(co_await run_on(state.pools.store, std::move(add)));
    tier.is_place = true;
    co_return Result<>{};
}

storage::OffloadPlace place_of(AgentState& state, TierState& tier, unsigned lanes) {
    const std::string& name = tier.config.name;
    auto keeps = [&state, name](const pb::PackInfo& pack) {
        return state.repository->keeps(pack, name);
    };
    auto make_lanes = [lanes](storage::ObjectLanes::Put put) {
        return storage::make_object_lanes(std::move(put), lanes);
    };
    auto is_hurried = [&tier] { return tier.has_newer.load(); };
    return {.name = name,
            .keeps = std::move(keeps),
            .lanes = std::move(make_lanes),
            .is_hurried = std::move(is_hurried)};
}

// held: of a pack that could not be put; the tier takes others.
enum class Outcome { complete, more, waits, held, failed };

Task<Outcome> one_round(AgentState& state, TierState& tier) {
    if (!tier.is_place) {
        auto added = co_await add_place(state, tier);
        if (!added) {
            note_failure(tier, added.error());
            co_return Outcome::failed;
        }
    }
    const Moment moment = co_await take_moment(state, tier);
    auto work = [&tier, &clock = state.clock, snapshot = moment.snapshot] {
        const SteadyTime until = clock.steady_now() + kRoundMax;
        return tier.offloader->offload(snapshot, [&] { return clock.steady_now() < until; });
    };
    auto round = co_await run_on(tier.pool, std::move(work));
    if (!round) {
        note_failure(tier, round.error());
        co_return Outcome::failed;
    }
    note_round(tier, moment, *round);
    if (round->has_wal) state.capture.note_offloaded(moment.history, moment.flushed_lsn);
    if (round->failure) co_return Outcome::held;
    if (round->is_complete && moment.is_exact) co_return Outcome::complete;
    co_return round->put_bytes > 0 ? Outcome::more : Outcome::waits;
}

bool waits_for_copies(const AgentState& state) {
    return state.server.acknowledge == Acknowledge::offloaded;
}

// Commits wait for a copy, and this one does not have what they wait for.
bool is_waited_for(const AgentState& state, const TierState& tier) {
    return waits_for_copies(state) && state.capture.synchronous() && state.progress.history() &&
           (state.progress.history()->id != tier.history ||
            state.progress.flushed_lsn() > tier.offloaded_lsn);
}

}  // namespace

Result<> make_tiers(AgentState& state) {
    if (state.config.tiers.empty()) return {};
    WV_TRY(storage::MasterKey master, read_master_key(state.config));
    for (const TierConfig& config : state.config.tiers) {
        auto tier = std::make_unique<TierState>();
        tier->config = config;
        tier->metrics = state.metrics.tier(config.name);
        tier->repository =
            storage::make_directory_store(posix_file_system(), state.config.repo.root);
        storage::TierPlace place = config.place();
        if (place.bucket) place.bucket->retry_for = kRetryFor;
        WV_TRY(tier->objects, storage::open_tier_objects(posix_file_system(), place));
        const unsigned lanes = storage::objects_at_once(place);
        state.object_lanes += lanes;
        WV_TRY(tier->offloader, storage::Offloader::open(*tier->repository, *tier->objects, master,
                                                         place_of(state, *tier, lanes)));
        state.retention.places.push_back(
            {.place = config.name, .metrics = state.metrics.retention(config.name)});
        state.tiers.push_back(std::move(tier));
    }
    return {};
}

Task<> watch_newest(AgentState& state, TierState& tier) {
    while (!tier.ended) {
        if (waits_for_copies(state) && state.capture.synchronous() &&
            state.progress.flushed_lsn() > tier.round_lsn)
            tier.has_newer = true;
        co_await wait_for(waits_for_copies(state) ? state.progress.changed() : state.changed, 1s);
    }
}

Task<> keep_tier(AgentState& state, TierState& tier) {
    std::optional<SteadyTime> end;
    for (;;) {
        const bool is_last = state.drained;
        const SteadyTime began = state.clock.steady_now();
        if (is_last && !end) end = began + kLastRoundsMax;
        const Outcome outcome = co_await one_round(state, tier);
        const bool is_stopped = outcome == Outcome::held || outcome == Outcome::failed;
        if (is_last &&
            (outcome == Outcome::complete || is_stopped || state.clock.steady_now() > *end))
            break;
        SteadyTime next = state.clock.steady_now();
        if (outcome == Outcome::complete) next = began + tier.config.offload_interval;
        if (outcome == Outcome::waits) next += kSoon;
        if (is_stopped) next += tier.backoff.next();
        while ((!state.drained || is_last) && state.clock.steady_now() < next) {
            if (is_waited_for(state, tier) && outcome == Outcome::complete) break;
            const bool takes_newer = outcome != Outcome::failed && outcome != Outcome::waits;
            if (tier.has_newer && takes_newer) break;
            co_await wait_for(waits_for_copies(state) ? state.progress.changed() : state.changed,
                              next - state.clock.steady_now());
        }
    }
    // Packs that are being put are put another time.
    tier.objects->cancel();
    tier.ended = true;
    state.changed.notify();
    state.progress.changed().notify();
}

Task<> cut_tier_short(AgentState& state, TierState& tier) {
    while (!state.drained)
        co_await wait_for(state.changed, 1h);
    const SteadyTime end = state.clock.steady_now() + kLastRoundsMax;
    while (!tier.ended && state.clock.steady_now() < end)
        co_await wait_for(state.changed, end - state.clock.steady_now());
    if (!tier.ended) tier.objects->cancel();
}

TierLag lag_of(const AgentState& state, const TierState& tier) {
    const Progress& progress = state.progress;
    if (!progress.history()) return {};
    const Lsn position =
        progress.history()->id == tier.history ? tier.offloaded_lsn : progress.history()->start_lsn;
    const Lsn upstream = std::max(progress.upstream_lsn(), position);
    return {upstream - position, progress.behind(position, state.clock.steady_now())};
}

}  // namespace walvault::agent
