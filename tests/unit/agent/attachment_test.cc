#include "agent/attachment.h"

#include <doctest/doctest.h>

#include "tests/support/segment_bytes.h"

namespace walvault::agent {
namespace {

using storage::HistoryRecord;

constexpr Lsn segment(std::uint64_t number) { return Lsn{number * kSegmentBytes}; }

Id16 id_of(int number) {
    Id16 id{};
    id[0] = static_cast<std::byte>(number);
    return id;
}

HistoryRecord history(int number, TimelineId timeline, Lsn start, Lsn end) {
    HistoryRecord record;
    record.id = id_of(number);
    record.timeline = timeline;
    record.start_lsn = start;
    record.end_lsn = end;
    return record;
}

ServerSide server(TimelineId timeline, Lsn flushed, std::vector<TimelineSwitch> ancestors = {}) {
    ServerSide side;
    side.timeline = timeline;
    side.flushed_lsn = flushed;
    side.ancestors = std::move(ancestors);
    side.segment_bytes = kSegmentBytes;
    side.reserved_lsn = flushed;
    return side;
}

template <class T>
T only(const Attachment& attachment) {
    REQUIRE(std::holds_alternative<T>(attachment));
    return std::get<T>(attachment);
}

}  // namespace

TEST_CASE("the first attachment begins at the segment that the slot reserves") {
    auto begin = only<Begin>(choose_attachment(server(1, segment(3) + 500), {}, {}, {}));
    CHECK(begin.start_lsn == segment(3));
    CHECK(begin.cause == pb::HistoryOpened::FIRST);
    CHECK(begin.timeline == 1);
}

TEST_CASE("a known history is compared from the start of the segment that it ends in") {
    auto known = history(1, 1, segment(2), segment(5) + 1_MiB);
    auto follow = only<Follow>(choose_attachment(server(1, segment(6)), {known}, known.id, {}));
    CHECK(follow.history == known.id);
    CHECK(follow.from_lsn == segment(5));
    CHECK_FALSE(follow.resumed);
}

TEST_CASE("where a history ends near a segment's start, the segment before it is compared") {
    for (std::uint64_t more : {std::uint64_t{0}, std::uint64_t{8192}}) {
        auto known = history(1, 1, segment(2), segment(5) + more);
        auto follow = only<Follow>(choose_attachment(server(1, segment(6)), {known}, known.id, {}));
        CHECK(follow.from_lsn == segment(4));
        auto recycled = server(1, segment(6));
        recycled.keeps_older_segments = false;
        follow = only<Follow>(choose_attachment(recycled, {known}, known.id, {}));
        CHECK(follow.from_lsn == segment(5));
    }
    auto young = history(1, 1, segment(5), segment(5) + 100);
    CHECK(only<Follow>(choose_attachment(server(1, segment(6)), {young}, young.id, {})).from_lsn ==
          segment(5));
}

TEST_CASE(
    "a primary behind what is stored was rolled back: it is compared to its end, then a branch") {
    auto known = history(1, 1, segment(2), segment(9) + 5000);
    const auto side = server(1, segment(5) + 1_MiB);
    auto follow = only<Follow>(choose_attachment(side, {known}, known.id, {}));
    CHECK(follow.behind);
    CHECK(follow.from_lsn == segment(5));
    Difference all_equal{known.id, segment(5), segment(5) + 1_MiB};
    auto branch = only<Branch>(choose_attachment(side, {known}, known.id, {all_equal}));
    CHECK(branch.parent == known.id);
    CHECK(branch.fork_lsn == segment(5) + 1_MiB);
    CHECK(branch.start_lsn == segment(5));
    CHECK(branch.timeline == 1);
    CHECK(branch.cause == pb::HistoryOpened::FORK);

    auto standby = side;
    standby.in_recovery = true;
    only<Wait>(choose_attachment(standby, {known}, known.id, {}));
    only<Begin>(choose_attachment(server(1, segment(2)), {known}, known.id, {}));
}

TEST_CASE("a server that stands at a segment's start is compared where there is proof") {
    auto known = history(1, 1, segment(2), segment(9));
    auto follow = only<Follow>(choose_attachment(server(1, segment(5)), {known}, known.id, {}));
    CHECK(follow.from_lsn == segment(4));
    Difference all_equal{known.id, segment(4), segment(5)};
    auto branch =
        only<Branch>(choose_attachment(server(1, segment(5)), {known}, known.id, {all_equal}));
    CHECK(branch.fork_lsn == segment(5));
    CHECK(branch.start_lsn == segment(4));
}

TEST_CASE("a difference behind enough equal bytes opens a branch there") {
    auto known = history(1, 1, segment(2), segment(5) + 9_MiB);
    Difference differs{known.id, segment(5), segment(5) + 3_MiB};
    auto branch =
        only<Branch>(choose_attachment(server(1, segment(8)), {known}, known.id, {differs}));
    CHECK(branch.parent == known.id);
    CHECK(branch.fork_lsn == segment(5) + 3_MiB);
    CHECK(branch.start_lsn == segment(5));
}

TEST_CASE(
    "a difference that proves nothing is looked into a segment further back, and not for ever") {
    auto known = history(1, 1, segment(2), segment(30) + 9_MiB);
    Lsn from = segment(30);
    int looks = 0;
    for (;; ++looks) {
        auto next = choose_attachment(server(1, segment(40)), {known}, known.id,
                                      {{known.id, from, from + 100}});
        if (auto* begin = std::get_if<Begin>(&next)) {
            CHECK(begin->cause == pb::HistoryOpened::UNRELATED);
            break;
        }
        auto follow = only<Follow>(next);
        CHECK(follow.from_lsn == Lsn{from.value - kSegmentBytes});
        from = follow.from_lsn;
    }
    CHECK(looks == kLookBackSegmentsMax);

    auto recycled = server(1, segment(40));
    recycled.keeps_older_segments = false;
    only<Begin>(choose_attachment(recycled, {known}, known.id,
                                  {{known.id, segment(30), segment(30) + 100}}));
}

TEST_CASE("a promotion is followed to the end of the old timeline first") {
    auto old = history(1, 1, segment(2), segment(5) + 1_MiB);
    auto promoted = server(2, segment(7), {{1, segment(6) + 2_MiB}});
    auto follow = only<Follow>(choose_attachment(promoted, {old}, old.id, {}));
    CHECK(follow.timeline == 1);
    CHECK(follow.from_lsn == segment(5));
}

TEST_CASE("at the switch, or behind it, the next timeline continues the old history there") {
    const Lsn switched = segment(6) + 2_MiB;
    for (std::uint64_t beyond : {std::uint64_t{0}, std::uint64_t{3_MiB}}) {
        auto old = history(1, 1, segment(2), switched + beyond);
        auto branch = only<Branch>(
            choose_attachment(server(2, segment(9), {{1, switched}}), {old}, old.id, {}));
        CHECK(branch.parent == old.id);
        CHECK(branch.timeline == 2);
        CHECK(branch.fork_lsn == switched);
        CHECK(branch.start_lsn == segment(6));
        CHECK(branch.cause == pb::HistoryOpened::PROMOTION);
    }
}

TEST_CASE("timelines may jump, and several may end in one segment") {
    auto old = history(1, 1, segment(2), segment(6) + 2_MiB);
    auto jumped = only<Branch>(
        choose_attachment(server(3, segment(9), {{1, segment(6) + 2_MiB}}), {old}, old.id, {}));
    CHECK(jumped.timeline == 3);

    std::vector<TimelineSwitch> path{{1, segment(6) + 2_MiB}, {2, segment(6) + 3_MiB}};
    auto first = only<Branch>(choose_attachment(server(3, segment(9), path), {old}, old.id, {}));
    CHECK(first.timeline == 2);
    auto second = history(2, 2, segment(6), segment(6) + 3_MiB);
    auto next =
        only<Branch>(choose_attachment(server(3, segment(9), path), {old, second}, second.id, {}));
    CHECK(next.parent == second.id);
    CHECK(next.timeline == 3);
}

TEST_CASE("a server that comes back is followed where it was left") {
    auto old = history(1, 1, segment(2), segment(8) + 1_MiB);
    auto newer = history(2, 2, segment(6), segment(9) + 1_MiB);
    auto back = only<Follow>(choose_attachment(server(1, segment(9)), {old, newer}, newer.id, {}));
    CHECK(back.history == old.id);
    CHECK(back.resumed);
    auto again = only<Follow>(choose_attachment(server(2, segment(10), {{1, segment(6) + 1_MiB}}),
                                                {old, newer}, old.id, {}));
    CHECK(again.history == newer.id);
    CHECK(again.resumed);
}

TEST_CASE("a history that was left before it got a byte is not followed again") {
    auto empty = history(1, 1, segment(1), segment(1));
    auto known = history(2, 1, segment(2), segment(5) + 9_MiB);
    Difference differs{known.id, segment(5), segment(5) + 3_MiB};
    auto branch =
        only<Branch>(choose_attachment(server(1, segment(8)), {empty, known}, known.id, {differs}));
    CHECK(branch.parent == known.id);
    CHECK(branch.fork_lsn == segment(5) + 3_MiB);
    // The one that is followed now is, empty or not.
    auto follow = only<Follow>(choose_attachment(server(1, segment(3)), {empty}, empty.id, {}));
    CHECK(follow.history == empty.id);
    // And one that a promotion began.
    empty.parent = known.id;
    auto child =
        only<Follow>(choose_attachment(server(1, segment(8)), {empty, known}, known.id, {differs}));
    CHECK(child.history == empty.id);
}

TEST_CASE("of two clones that took the same timeline, the one whose bytes agree is followed") {
    auto old = history(1, 1, segment(2), segment(6) + 2_MiB);
    auto first = history(2, 2, segment(6), segment(8) + 1_MiB);
    auto second = history(3, 2, segment(6), segment(7) + 1_MiB);
    auto side = server(2, segment(9), {{1, segment(6) + 2_MiB}});
    std::vector<HistoryRecord> all{old, first, second};
    CHECK(only<Follow>(choose_attachment(side, all, second.id, {})).history == second.id);
    Difference differs{second.id, segment(7), segment(7) + 5};
    CHECK(only<Follow>(choose_attachment(side, all, second.id, {differs})).history == first.id);
    Difference other{first.id, segment(8), segment(8) + 5};
    auto third = only<Branch>(choose_attachment(side, all, second.id, {differs, other}));
    CHECK(third.parent == old.id);
    CHECK(third.timeline == 2);
}

TEST_CASE("what agrees on the server's timeline is nearer than where the one before it ended") {
    auto old = history(1, 1, segment(2), segment(5) + 1_MiB);
    auto next = history(2, 2, segment(5), segment(9) + 1_MiB);
    next.parent = old.id;
    next.fork_lsn = old.end_lsn;
    const auto side = server(2, segment(9), {{1, old.end_lsn}});
    Difference differs{.history = next.id, .from_lsn = segment(8), .at_lsn = segment(8) + 2_MiB};
    auto branch = only<Branch>(choose_attachment(side, {old, next}, next.id, {differs}));
    CHECK(branch.parent == next.id);
    CHECK(branch.timeline == 2);
    CHECK(branch.fork_lsn == differs.at_lsn);
    // What differs before the switch, or at once, is not of that timeline.
    for (auto [from, at] :
         {std::pair(segment(5), segment(5) + 512_KiB), std::pair(segment(8), segment(8))}) {
        differs.from_lsn = from;
        differs.at_lsn = at;
        branch = only<Branch>(choose_attachment(side, {old, next}, next.id, {differs}));
        CHECK(branch.parent == old.id);
    }
}

TEST_CASE("a timeline without stored ancestor begins a history of its own") {
    auto known = history(1, 5, segment(20), segment(30));
    auto begin = only<Begin>(
        choose_attachment(server(7, segment(9), {{2, segment(4)}}), {known}, known.id, {}));
    CHECK(begin.cause == pb::HistoryOpened::UNRELATED);
    // The history began behind the point where the server's path left its timeline.
    auto late = history(1, 1, segment(20), segment(30));
    begin = only<Begin>(
        choose_attachment(server(2, segment(40), {{1, segment(10)}}), {late}, late.id, {}));
    CHECK(begin.cause == pb::HistoryOpened::UNRELATED);
}

TEST_CASE("a new history never begins before its timeline does, whatever the slot reserves") {
    auto promoted = server(3, segment(9), {{1, segment(2)}, {2, segment(6) + 4'096}});
    promoted.reserved_lsn = segment(4) + 100;
    auto begin = only<Begin>(choose_attachment(promoted, {}, {}, {}));
    CHECK(begin.timeline == 3);
    CHECK(begin.start_lsn == segment(6));
    promoted.reserved_lsn = segment(8) + 100;
    CHECK(only<Begin>(choose_attachment(promoted, {}, {}, {})).start_lsn == segment(8));
}

}  // namespace walvault::agent
