// Several packs are put at once, and come and fail in any order.
#include <doctest/doctest.h>

#include <condition_variable>
#include <mutex>

#include "tests/support/cut_store.h"
#include "tests/support/forwarding_store.h"
#include "tests/unit/storage/tier_pair.h"

namespace walvault::storage {
namespace {

// What is under way is carried out when it is asked for, one at random; what is left when the
// process dies is never begun.
class ShuffledLanes final : public ObjectLanes {
public:
    struct Seen {
        std::size_t most_at_once = 0;
        std::size_t out_of_order = 0;
    };
    ShuffledLanes(Put put, std::mt19937_64& random, Seen& seen)
        : put_(std::move(put)), random_(random), seen_(seen) {}

    bool has_room() const override { return under_way_.size() < 4; }
    void start(Object object) override {
        under_way_.push_back(std::move(object));
        seen_.most_at_once = std::max(seen_.most_at_once, under_way_.size());
    }
    std::vector<Done> take_done(std::chrono::milliseconds patience) override {
        const bool waits = patience > std::chrono::milliseconds(0);
        std::vector<Done> done;
        while (!under_way_.empty() && (random_() % 4 == 0 || (waits && done.empty()))) {
            const std::size_t at = random_() % under_way_.size();
            if (at > 0) ++seen_.out_of_order;
            const Object object = under_way_[at];
            under_way_.erase(under_way_.begin() + static_cast<long>(at));
            done.push_back({object.name, put_(object)});
        }
        return done;
    }

private:
    Put put_;
    std::mt19937_64& random_;
    Seen& seen_;
    std::vector<Object> under_way_;
};

// Refuses or holds up packs as a test says, and counts what is sent.
class GuardedStore final : public ForwardingStore {
public:
    using ForwardingStore::ForwardingStore;

    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        {
            std::unique_lock lock(mutex_);
            ++sent_[name];
            changed_.notify_all();
            changed_.wait(lock, [&] { return !holds_; });
        }
        if (name == broken) return fail(Errc::unavailable, "this one may not");
        auto done = objects_.put_from(name, size_bytes, source);
        std::lock_guard lock(mutex_);
        if (!done && done.error().code == Errc::refused) ++sent_for_nothing;
        return done;
    }

    void hold(bool holds) {
        std::lock_guard lock(mutex_);
        holds_ = holds;
        changed_.notify_all();
    }
    std::map<std::string, int> sent() {
        std::lock_guard lock(mutex_);
        return sent_;
    }
    std::string broken;
    std::size_t sent_for_nothing = 0;

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool holds_ = false;
    std::map<std::string, int> sent_;
};

// A copy that packs go to by lanes, and WAL to be written.
struct Backlog : TierPair {
    std::mt19937_64 random;
    ShuffledLanes::Seen seen;

    explicit Backlog(std::uint64_t seed, std::size_t wal_bytes) : random(seed) {
        initialize();
        wal.grow(seed, wal_bytes);
    }
    // All of its WAL, in closed packs.
    OffloadSnapshot write() {
        auto writing = must(stage.open());
        HistoryWriter writer(*writing, wal);
        must(writer.begin());
        must(writer.store(5'000, 20'000));
        must(writer.close());
        return writer.snapshot();
    }
    OffloadPlace shuffled() {
        return {.name = "second", .lanes = [this](ObjectLanes::Put put) {
                    return std::make_unique<ShuffledLanes>(std::move(put), random, seen);
                }};
    }
    static OffloadPlace threads(unsigned count) {
        return {.name = "second", .lanes = [count](ObjectLanes::Put put) {
                    return make_object_lanes(std::move(put), count);
                }};
    }
    std::unique_ptr<Offloader> offloader(ObjectStore& to, OffloadPlace place) {
        return must(Offloader::open(*repository, to, stage.master, std::move(place)));
    }
};

}  // namespace

// At each call of the store in turn, by a process that dies or one that goes on.
TEST_CASE(
    "packs that come in any order, cut off at any moment: nothing is named that is not there") {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        const bool carried_out = seed % 2 == 0;
        CAPTURE(seed);
        Backlog backlog(seed, 200'000);
        GuardedStore guarded(*backlog.objects);
        CutStore store(guarded);
        auto offloader = backlog.offloader(store, backlog.shuffled());
        auto repository = must(backlog.stage.open());
        HistoryWriter writer(*repository, backlog.wal);
        must(writer.begin());
        std::uint64_t call = 1;
        int cuts = 0;
        bool complete = true;
        while (writer.flushed < backlog.wal.builder.end()) {
            // Five packs and the tail behind them.
            if (complete) must(writer.store(3'000, 9'000, writer.flushed + 50'000));
            store.cut_at(call, carried_out);
            auto round = offloader->offload(writer.snapshot(), always);
            const bool cut = store.was_cut();
            if (!cut) CHECK((round && !round->failure));
            const Lsn end = backlog.check_is_prefix();
            CHECK(end <= writer.flushed);
            complete = round && round->is_complete;
            if (complete) CHECK(end == writer.flushed);
            cuts += cut ? 1 : 0;
            call = cut ? call + 1 + backlog.random() % 2 : 1;
            if (cut && backlog.random() % 2 == 0)
                offloader = backlog.offloader(store, backlog.shuffled());
        }
        CHECK(cuts > 15);
        store.cut_at(0, false);
        must(writer.close());
        for (int rounds = 0; !must(offloader->offload(writer.snapshot(), always)).is_complete;)
            REQUIRE(++rounds < 10);
        backlog.check_is_whole();
        CHECK(guarded.sent_for_nothing == 0);
        CHECK(backlog.seen.most_at_once == 4);
        CHECK(backlog.seen.out_of_order > 10);
    }
}

TEST_CASE("a pack that cannot be put holds up its entry and nothing else") {
    Backlog backlog(3, 400'000);
    GuardedStore store(*backlog.objects);
    auto offloader = backlog.offloader(store, backlog.shuffled());
    const OffloadSnapshot snapshot = backlog.write();
    const std::vector<std::string> packs = TierPair::packs_in(*backlog.repository);
    REQUIRE(packs.size() > 10);
    store.broken = packs[packs.size() / 2];
    Offloader::Round round;
    for (int rounds = 0; TierPair::packs_in(*backlog.objects).size() + 1 < packs.size(); ++rounds) {
        REQUIRE(rounds < 200);
        round = must(offloader->offload(snapshot, always));
        CHECK_FALSE(round.is_complete);
        CHECK_FALSE(round.is_reached);
        REQUIRE(round.failure);
        CHECK(round.failure->message == "this one may not");
        backlog.check_is_prefix();
    }
    CHECK(round.ledger_sequence < snapshot.ledger_sequence);
    // What is before it is in the ledger there.
    const auto named = must(backlog.view()->packs("main"));
    CHECK(named.size() == packs.size() / 2);
    for (const pb::PackInfo& pack : named)
        CHECK(pack.path() != store.broken);
    const auto before = store.sent();
    store.broken.clear();
    for (int rounds = 0; !must(offloader->offload(snapshot, always)).is_complete;)
        REQUIRE(++rounds < 10);
    backlog.check_is_whole();
    // None of the others was sent again, whatever failed meanwhile.
    for (const auto& [name, count] : store.sent())
        CHECK((name == packs[packs.size() / 2] ? count > before.at(name) : count == 1));
    CHECK(store.sent_for_nothing == 0);
}

TEST_CASE("a repository whose disk is away is not taken for one without its packs") {
    Backlog backlog(9, 100'000);
    GuardedStore store(*backlog.objects);
    auto offloader = backlog.offloader(store, backlog.shuffled());
    const OffloadSnapshot snapshot = backlog.write();
    // It has read the ledger, and then there is nothing but the mount point.
    int left = 2;
    auto round = must(offloader->offload(snapshot, [&] { return left-- > 0; }));
    const std::string away = backlog.stage.root + ".away";
    std::filesystem::rename(backlog.stage.root, away);
    std::filesystem::create_directory(backlog.stage.root);
    for (int rounds = 0; rounds < 5; ++rounds) {
        auto blind = offloader->offload(snapshot, always);
        CHECK((!blind || blind->failure));
    }
    backlog.check_is_prefix();
    std::filesystem::remove(backlog.stage.root);
    std::filesystem::rename(away, backlog.stage.root);
    for (int rounds = 0; !must(offloader->offload(snapshot, always)).is_complete;)
        REQUIRE(++rounds < 10);
    backlog.check_is_whole();
}

TEST_CASE("what was put is not put again when the ledger's piece could not be") {
    Backlog backlog(4, 300'000);
    GuardedStore counted(*backlog.objects);
    CutStore store(counted);
    auto offloader = backlog.offloader(store, backlog.shuffled());
    const OffloadSnapshot snapshot = backlog.write();
    const std::size_t packs = TierPair::packs_in(*backlog.repository).size();
    // Until all packs are there and no entry is.
    for (std::uint64_t call = 1; TierPair::packs_in(*backlog.objects).size() < packs; ++call) {
        REQUIRE(call < 500);
        store.cut_at(call, true);
        static_cast<void>(offloader->offload(snapshot, always));
    }
    store.cut_at(0, false);
    auto again = backlog.offloader(store, backlog.shuffled());
    CHECK(must(again->offload(snapshot, always)).is_complete);
    for (const auto& [name, count] : counted.sent())
        CHECK(count == 1);
    backlog.check_is_whole();
}

TEST_CASE("the newest WAL goes while a pack is on its way, and a round ends for newer WAL") {
    Backlog backlog(5, 200'000);
    GuardedStore store(*backlog.objects);
    OffloadPlace place = Backlog::threads(2);
    bool hurried = false;
    place.is_hurried = [&] { return hurried; };
    auto offloader = backlog.offloader(store, place);
    auto repository = must(backlog.stage.open());
    HistoryWriter writer(*repository, backlog.wal);
    must(writer.begin());
    const Lsn start = backlog.wal.builder.start();
    must(writer.store(5'000, 1u << 30, start + 60'000));
    must(writer.store_behind(5'000));
    CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
    writer.drop_left();
    must(repository->recover_tails());
    backlog.wal.grow(6, 100'000);
    must(writer.store(5'000, 1u << 30));
    store.hold(true);
    hurried = true;
    auto round = must(offloader->offload(writer.snapshot(), always));
    CHECK_FALSE(round.is_complete);
    CHECK(round.has_wal);
    CHECK(round.is_reached);
    CHECK(backlog.check_is_prefix() == writer.flushed);
    // Nothing is asked of the tier: nobody can say how it is.
    round = must(offloader->offload(writer.snapshot(), always));
    CHECK_FALSE(round.is_reached);
    CHECK(round.has_wal);
    store.hold(false);
    hurried = false;
    CHECK(must(offloader->offload(writer.snapshot(), always)).is_complete);
    CHECK(store.sent().size() == 1);
    writer.drop();
}

TEST_CASE("a backlog goes by threads and is whole in the end") {
    Backlog backlog(7, 3'000'000);
    const OffloadSnapshot snapshot = backlog.write();
    auto offloader = backlog.offloader(*backlog.objects, Backlog::threads(6));
    // Ended and begun again while packs are on their way.
    int left = 40;
    CHECK_FALSE(must(offloader->offload(snapshot, [&] { return left-- > 0; })).is_complete);
    offloader = backlog.offloader(*backlog.objects, Backlog::threads(6));
    CHECK(must(offloader->offload(snapshot, always)).is_complete);
    backlog.check_is_whole();
}

}  // namespace walvault::storage
