#include "storage/offload_plan.h"

#include <doctest/doctest.h>

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
