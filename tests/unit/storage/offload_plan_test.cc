#include "storage/offload_plan.h"

#include <doctest/doctest.h>

#include <random>

namespace walvault::storage {
namespace {

using Kind = OffloadStep::Kind;

Id16 history_numbered(unsigned char number) {
    Id16 id{};
    id[0] = std::byte{number};
    return id;
}
const Id16 kHistory = history_numbered(1);

PendingEntry plain(std::uint64_t sequence) { return {.sequence = sequence, .record_bytes = 100}; }
PendingEntry opens(std::uint64_t sequence, const std::string& tail,
                   const Id16& history = kHistory) {
    PendingEntry entry = plain(sequence);
    entry.opens_tail = tail;
    entry.history = history;
    return entry;
}
PendingEntry closes(std::uint64_t sequence, const std::string& tail, const std::string& pack,
                    std::uint64_t bytes = 1000) {
    PendingEntry entry = plain(sequence);
    entry.ends_tail = tail;
    entry.needs = {{pack, bytes}};
    return entry;
}
PendingEntry gap(std::uint64_t sequence) {
    PendingEntry entry = plain(sequence);
    entry.is_gap = true;
    return entry;
}

}  // namespace

TEST_CASE("where nothing is new there is nothing to do") {
    CHECK(next_offload_step({}, {}).kind == Kind::nothing);
    OffloadState state;
    state.tails["a"] = {kHistory, 500};
    CHECK(next_offload_step(state, {.ledger_sequence = 1, .tails = {{"a", 500}}}).kind ==
          Kind::nothing);
    // Nothing but its header.
    state.tails["a"].end_offset = 0;
    CHECK(next_offload_step(state, {.ledger_sequence = 1, .tails = {{"a", 160}}}).kind ==
          Kind::nothing);
}

TEST_CASE("packs are not put far ahead of an entry that waits") {
    constexpr std::uint64_t kPack = 100 << 20;
    OffloadState state;
    state.pending = {closes(1, "", "slow", kPack)};
    for (std::uint64_t i = 2; i < 20; ++i)
        state.pending.push_back(closes(i, "", "p" + std::to_string(i), kPack));
    state.under_way = {"slow"};
    std::size_t ahead = 0;
    for (;; ++ahead) {
        const OffloadStep step = next_offload_step(state, {});
        if (step.kind != Kind::object) {
            CHECK(step.kind == Kind::under_way);
            break;
        }
        state.present.insert(step.name);
    }
    CHECK(ahead == 2);
    state.under_way.clear();
    CHECK(next_offload_step(state, {}).name == "slow");
    state.present.insert("slow");
    CHECK(next_offload_step(state, {}).kind == Kind::ledger);
}

TEST_CASE("a pack is there before the entry that names it") {
    OffloadState state;
    state.pending = {plain(7), closes(8, "", "x.pack"), plain(9)};
    OffloadStep step = next_offload_step(state, {});
    CHECK(step.kind == Kind::object);
    CHECK(step.name == "x.pack");
    state.present.insert("x.pack");
    step = next_offload_step(state, {});
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 3);
}

TEST_CASE("packs are begun in their order while there is room, and what is begun is waited for") {
    OffloadState state;
    state.pending = {closes(7, "", "x.pack"), plain(8), closes(9, "", "y.pack"),
                     closes(10, "", "z.pack")};
    for (const char* name : {"x.pack", "y.pack", "z.pack"}) {
        OffloadStep step = next_offload_step(state, {});
        CHECK(step.kind == Kind::object);
        CHECK(step.name == name);
        state.has_room = false;
        CHECK(next_offload_step(state, {}).kind == Kind::under_way);
        state.has_room = true;
        state.under_way.insert(step.name);
    }
    CHECK(next_offload_step(state, {}).kind == Kind::under_way);
    // The later ones are there, and the entry of none goes before the first is.
    state.under_way = {"x.pack"};
    state.present = {"y.pack", "z.pack"};
    CHECK(next_offload_step(state, {}).kind == Kind::under_way);
    // y could not be put: what is before it is told of.
    state.present = {"x.pack", "z.pack"};
    CHECK(next_offload_step(state, {}).kind == Kind::object);
    state.is_held_up = true;
    CHECK(next_offload_step(state, {}).kind == Kind::ledger);
    CHECK(next_offload_step(state, {}).entry_count == 2);
    state.is_held_up = false;
    state.under_way.clear();
    state.present.insert("y.pack");
    OffloadStep step = next_offload_step(state, {});
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 4);
}

TEST_CASE("the tail that is written to is opened there before packs behind it") {
    OffloadState state;
    state.pending = {plain(7), opens(8, "b"), closes(9, "", "base.pack", 256 << 20)};
    const OffloadSnapshot snapshot{.ledger_sequence = 9, .tails = {{"b", 300}}};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 2);
    state.pending.erase(state.pending.begin(), state.pending.begin() + 2);
    state.tails["b"] = {kHistory, 0};
    state.under_way = {"base.pack"};
    CHECK(next_offload_step(state, snapshot).kind == Kind::tail);
    state.tails["b"].end_offset = 300;
    CHECK(next_offload_step(state, snapshot).kind == Kind::under_way);
    // Not where the one before it must end in the same piece.
    state = {};
    state.tails["a"] = {kHistory, 600};
    state.pending = {opens(8, "b"), closes(9, "", "base.pack"), closes(10, "a", "a.pack")};
    CHECK(next_offload_step(state, snapshot).kind == Kind::object);
}

// Packs that are done in any order, and at times fail and are begun again.
TEST_CASE("in whatever order packs come, each is begun once and none is named before it is there") {
    for (unsigned seed = 0; seed < 200; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        OffloadState state;
        const unsigned count = 1 + random() % 40;
        for (unsigned number = 0; number < count; ++number) {
            PendingEntry entry = plain(number + 1);
            for (unsigned pack = random() % 3; pack > 0; --pack)
                entry.needs.push_back(
                    {std::to_string(number) + "-" + std::to_string(pack), 90 << 20});
            state.pending.push_back(std::move(entry));
        }
        std::set<std::string> there;
        std::uint64_t sequence = 0;
        const unsigned room = 1 + random() % 6;
        for (int steps = 0;; ++steps) {
            REQUIRE(steps < 2000);
            state.has_room = state.under_way.size() < room;
            const OffloadStep step = next_offload_step(state, {});
            if (step.kind == Kind::nothing) break;
            if (step.kind == Kind::object) {
                CHECK(state.has_room);
                CHECK_FALSE(there.contains(step.name));
                CHECK(state.under_way.insert(step.name).second);
            } else if (step.kind == Kind::ledger) {
                for (std::size_t i = 0; i < step.entry_count; ++i, state.pending.pop_front()) {
                    CHECK(state.pending.front().sequence == ++sequence);
                    for (const NeededObject& object : state.pending.front().needs)
                        CHECK(there.contains(object.name));
                }
            } else {
                REQUIRE(step.kind == Kind::under_way);
                REQUIRE_FALSE(state.under_way.empty());
                auto done = std::next(state.under_way.begin(),
                                      static_cast<long>(random() % state.under_way.size()));
                if (random() % 10 != 0) {
                    state.present.insert(*done);
                    there.insert(*done);
                }
                state.under_way.erase(done);
            }
        }
        CHECK(sequence == count);
        CHECK(state.under_way.empty());
    }
}

TEST_CASE("a tail gets nothing before its entry is there, and then what is synced") {
    OffloadState state;
    state.pending = {opens(7, "a")};
    const OffloadSnapshot snapshot{.ledger_sequence = 7, .tails = {{"a", 900}}};
    CHECK(next_offload_step(state, snapshot).kind == Kind::ledger);
    state.pending.clear();
    state.tails["a"] = {kHistory, 0};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::tail);
    CHECK(step.name == "a");
    CHECK(step.from == 0);
    CHECK(step.to == 900);
    state.tails["a"].end_offset = 600;
    CHECK(next_offload_step(state, snapshot).from == 600);
}

TEST_CASE("the next tail of a history begins when the one before it is whole") {
    OffloadState state;
    state.tails["a"] = {kHistory, 600};
    state.pending = {plain(7), opens(8, "b")};
    OffloadSnapshot snapshot{.ledger_sequence = 8, .tails = {{"a", 900}, {"b", 300}}};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::tail);
    CHECK(step.name == "a");
    state.tails["a"].end_offset = 900;
    step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 2);
}

TEST_CASE("where both tails are new their entries come one after the other") {
    OffloadState state;
    state.pending = {opens(7, "a"), opens(8, "b")};
    const OffloadSnapshot snapshot{.ledger_sequence = 8, .tails = {{"a", 900}, {"b", 300}}};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 1);
}

TEST_CASE(
    "a tail that is a pack by now and was not whole ends in the piece that begins the next one") {
    OffloadState state;
    state.tails["a"] = {kHistory, 600};
    state.pending = {plain(7), opens(8, "b"), plain(9), closes(10, "a", "a.pack"), plain(11)};
    const OffloadSnapshot snapshot{.ledger_sequence = 11, .tails = {{"b", 300}}};
    CHECK(next_offload_step(state, snapshot).kind == Kind::object);
    state.present.insert("a.pack");
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 5);
    // Also where many bytes would end the piece before.
    state.pending[2].needs = {{"big.pack", 1ull << 40}};
    state.present.insert("big.pack");
    step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 4);
}

TEST_CASE("a tail that is being closed is waited for, with what is before the next one put") {
    OffloadState state;
    state.tails["a"] = {kHistory, 600};
    state.pending = {plain(7), opens(8, "b")};
    const OffloadSnapshot snapshot{.ledger_sequence = 8, .tails = {{"b", 300}}};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 1);
    state.pending.pop_front();
    CHECK(next_offload_step(state, snapshot).kind == Kind::wait);
    state.pending_is_all = false;
    CHECK(next_offload_step(state, snapshot).kind == Kind::read_on);
}

TEST_CASE("a tail of another history, or one that holds no frame, is not waited for") {
    OffloadState state;
    state.tails["other"] = {history_numbered(2), 600};
    state.tails["empty"] = {kHistory, 0};
    state.pending = {opens(8, "b")};
    CHECK(next_offload_step(state, {.ledger_sequence = 8, .tails = {{"empty", 160}}}).kind ==
          Kind::ledger);
}

TEST_CASE("a gap is told before the WAL behind it, and not before the end of the tail before it") {
    OffloadState state;
    state.tails["a"] = {kHistory, 600};
    state.pending = {closes(6, "", "base.pack"), gap(7)};
    const OffloadSnapshot snapshot{.ledger_sequence = 8, .tails = {{"a", 900}, {"b", 300}}};
    CHECK(next_offload_step(state, snapshot).kind == Kind::object);
    state.present.insert("base.pack");
    CHECK(next_offload_step(state, snapshot).entry_count == 2);
    // The gap lies behind the whole of "a".
    state.pending = {opens(7, "b"), gap(8)};
    OffloadStep step = next_offload_step(state, snapshot);
    CHECK(step.kind == Kind::tail);
    CHECK(step.name == "a");
}

TEST_CASE("the pieces of a tail go last, when its end is told") {
    OffloadState state;
    state.superseded_tails = {"a"};
    state.pending = {plain(7)};
    CHECK(next_offload_step(state, {}).kind == Kind::ledger);
    state.pending.clear();
    OffloadStep step = next_offload_step(state, {});
    CHECK(step.kind == Kind::remove);
    CHECK(step.name == "a");
}

TEST_CASE("a long backlog counts bit by bit, and tails go before it") {
    OffloadState state;
    for (std::uint64_t i = 0; i < 20; ++i) {
        std::string pack = std::to_string(i) + ".pack";
        state.pending.push_back(closes(7 + i, "", pack, 64 << 20));
        state.present.insert(pack);
    }
    OffloadStep step = next_offload_step(state, {});
    CHECK(step.kind == Kind::ledger);
    CHECK(step.entry_count == 4);
    state.tails["a"] = {kHistory, 600};
    CHECK(next_offload_step(state, {.ledger_sequence = 9, .tails = {{"a", 700}}}).kind ==
          Kind::tail);
}

TEST_CASE("what waits is the packs that are not there, the entries and the ends of tails") {
    OffloadState state;
    state.pending = {closes(7, "", "x.pack", 5000), closes(8, "", "y.pack", 3000)};
    state.present.insert("x.pack");
    state.tails["a"] = {kHistory, 600};
    CHECK(pending_bytes(state,
                        {.ledger_sequence = 8, .tails = {{"a", 700}, {"b", 400}, {"c", 160}}}) ==
          200 + 3000 + 100 + 400);
}

}  // namespace walvault::storage
