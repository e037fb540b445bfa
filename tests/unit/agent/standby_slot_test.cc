#include "agent/standby_slot.h"

#include <doctest/doctest.h>

#include "tests/support/segment_bytes.h"

namespace walvault::agent {
namespace {

StoredPosition stored_up_to(Lsn lsn) {
    return {.system_identifier = 7,
            .timeline = 2,
            .acknowledged_lsn = lsn,
            .segment_bytes = kSegmentBytes,
            .from_standby = false};
}

wal::StandbyFacts standby_with(std::optional<Lsn> restart, Lsn replayed) {
    wal::StandbyFacts facts;
    facts.in_recovery = true;
    facts.system_identifier = 7;
    facts.timeline = 2;
    facts.replayed_lsn = replayed;
    facts.slot = wal::StandbyFacts::Slot{.physical = true, .restart_lsn = restart};
    return facts;
}

Lsn in_segment(std::uint64_t number, std::uint64_t offset) {
    return Lsn{number * kSegmentBytes + offset};
}

std::optional<Lsn> advanced_to(const StandbyStep& step) {
    const auto* advance = std::get_if<AdvanceSlot>(&step);
    return advance ? std::optional(advance->to) : std::nullopt;
}

TEST_CASE("a slot on a standby follows at the start of the segment that a reconnection compares") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    CHECK(advanced_to(next_step(stored, standby_with(in_segment(5, 40), in_segment(9, 1 << 20)))) ==
          in_segment(9, 0));
    SUBCASE("and one earlier where too little of that one would be compared") {
        CHECK(advanced_to(next_step(stored_up_to(in_segment(9, 100)),
                                    standby_with(in_segment(5, 40), in_segment(9, 100)))) ==
              in_segment(8, 0));
    }
    SUBCASE("in the first segment there is none before it") {
        CHECK(needed_from(stored_up_to(Lsn{100})) == Lsn{0});
    }
}

TEST_CASE("a slot on a standby never passes what the standby has replayed") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    CHECK(advanced_to(next_step(stored, standby_with(in_segment(5, 40), in_segment(7, 123)))) ==
          in_segment(7, 123));
}

TEST_CASE("a slot on a standby moves forward only") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    for (Lsn restart : {in_segment(9, 0), in_segment(9, 5000), in_segment(9, 1 << 20)})
        CHECK(std::holds_alternative<SlotIsReady>(
            next_step(stored, standby_with(restart, in_segment(12, 0)))));
}

TEST_CASE("a slot that begins behind what is stored is not ready") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    CHECK(std::holds_alternative<LeaveSlot>(
        next_step(stored, standby_with(in_segment(11, 0), in_segment(12, 0)))));
}

TEST_CASE("a slot that is missing is made, one that holds nothing is made anew") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    auto standby = standby_with(std::nullopt, in_segment(9, 0));
    auto step = next_step(stored, standby);
    REQUIRE(std::holds_alternative<MakeSlot>(step));
    CHECK(std::get<MakeSlot>(step).renew);
    standby.slot->restart_lsn = in_segment(4, 0);
    standby.slot->lost = true;
    step = next_step(stored, standby);
    REQUIRE(std::holds_alternative<MakeSlot>(step));
    CHECK(std::get<MakeSlot>(step).renew);
    standby.slot.reset();
    // Whatever its timeline is: the reservation begins at its own restart point.
    standby.timeline = 1;
    step = next_step(stored, standby);
    REQUIRE(std::holds_alternative<MakeSlot>(step));
    CHECK_FALSE(std::get<MakeSlot>(step).renew);
}

TEST_CASE("what is not this agent's, in use, or on another path is left alone") {
    const StoredPosition stored = stored_up_to(in_segment(9, 1 << 20));
    const auto usual = standby_with(in_segment(5, 40), in_segment(9, 0));
    auto left = [&](auto change) {
        auto standby = usual;
        change(standby);
        return std::holds_alternative<LeaveSlot>(next_step(stored, standby));
    };
    CHECK(left([](auto& standby) { standby.system_identifier = 8; }));
    CHECK(left([](auto& standby) { standby.in_recovery = false; }));
    CHECK(left([](auto& standby) { standby.slot->physical = false; }));
    CHECK(left([](auto& standby) { standby.slot->active = true; }));
    // Its timeline may have left ours before what is stored: WAL from there on would go.
    CHECK(left([](auto& standby) { standby.timeline = 3; }));
    CHECK(left([](auto& standby) { standby.timeline = 1; }));
    // Not even a slot that is missing is made on what is no standby of this cluster.
    CHECK(left([](auto& standby) {
        standby.system_identifier = 8;
        standby.slot.reset();
    }));
    CHECK(left([](auto& standby) {
        standby.in_recovery = false;
        standby.slot.reset();
    }));
}

TEST_CASE("a second primary is told apart") {
    auto standby = standby_with(in_segment(5, 40), in_segment(9, 0));
    standby.in_recovery = false;
    auto step = next_step(stored_up_to(in_segment(9, 0)), standby);
    REQUIRE(std::holds_alternative<LeaveSlot>(step));
    CHECK(std::get<LeaveSlot>(step).second_primary);
    // Where a standby is streamed from, a primary is expected, and its slot holds WAL as any other.
    StoredPosition from_standby = stored_up_to(in_segment(9, 1 << 20));
    from_standby.from_standby = true;
    CHECK(advanced_to(next_step(from_standby, standby)) == in_segment(9, 0));
}

}  // namespace
}  // namespace walvault::agent
