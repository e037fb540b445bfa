#include "agent/slot_governor.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

using std::chrono::seconds;

constexpr std::uint64_t kGiB = 1ull << 30;
const SteadyTime kStart{std::chrono::hours(1000)};

const SlotLimits kNeverGiveUp{.warn_bytes = 20 * kGiB, .give_up_bytes = {}, .reserve_ratio = 0.1};
const SlotLimits kMayGiveUp{
    .warn_bytes = 20 * kGiB, .give_up_bytes = 64 * kGiB, .reserve_ratio = 0.1};

SlotLook look(std::uint64_t retained_gib, seconds after = seconds(0)) {
    SlotLook made;
    made.at = kStart + after;
    made.exists = true;
    made.retained_bytes = retained_gib * kGiB;
    made.store_available_bytes = 500 * kGiB;
    made.store_size_bytes = 1000 * kGiB;
    return made;
}

bool says(const Verdict& verdict, const std::string& part) {
    return verdict.reason.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a slot below its limits and a disk above its reserve are fine") {
    SlotGovernor governor;
    CHECK(governor.decide(look(20), kMayGiveUp).step == GovernorStep::fine);
    CHECK(governor.decide(look(20), kMayGiveUp).reason.empty());
}

TEST_CASE("a slot above slot_limit is warned of with both numbers") {
    SlotGovernor governor;
    const Verdict verdict = governor.decide(look(21), kMayGiveUp);
    CHECK(verdict.step == GovernorStep::warn);
    CHECK(says(verdict, "21 GiB"));
    CHECK(says(verdict, "20 GiB"));
}

TEST_CASE("a slot that has used three quarters of what the server allows is warned of") {
    SlotGovernor governor;
    SlotLook now = look(6);
    now.safe_bytes = 2 * kGiB;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::fine);
    now.safe_bytes = 2 * kGiB - 1000;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::warn);
    now.safe_bytes = -5;
    CHECK(says(governor.decide(now, kMayGiveUp), "0 B further on"));
}

TEST_CASE("a disk below its reserve spills, whatever the slot holds") {
    SlotGovernor governor;
    SlotLook now = look(0);
    now.store_available_bytes = 100 * kGiB;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::fine);
    now.store_available_bytes = 100 * kGiB - 1;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::spill);
    now.retained_bytes = 30 * kGiB;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::spill);
    now.exists = false;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::spill);
}

TEST_CASE("a disk whose size is not known does not spill") {
    SlotGovernor governor;
    SlotLook now = look(0);
    now.store_available_bytes = now.store_size_bytes = 0;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::fine);
}

TEST_CASE("without slot_give_up a slot is never given up") {
    SlotGovernor governor;
    for (int minute = 0; minute < 600; ++minute)
        REQUIRE(governor.decide(look(900, seconds(60 * minute)), kNeverGiveUp).step ==
                GovernorStep::warn);
}

TEST_CASE("a slot above slot_give_up is given up once it has held no less for the patience") {
    SlotGovernor governor;
    CHECK(governor.decide(look(65), kMayGiveUp).step == GovernorStep::warn);
    CHECK(governor.decide(look(70, seconds(59)), kMayGiveUp).step == GovernorStep::warn);
    const Verdict verdict = governor.decide(look(71, seconds(60)), kMayGiveUp);
    CHECK(verdict.step == GovernorStep::give_up);
    CHECK(says(verdict, "71 GiB"));
    CHECK(says(verdict, "64 GiB"));
}

TEST_CASE("an agent that catches up is left to it") {
    SlotGovernor governor;
    for (int step = 0; step < 80; ++step)
        REQUIRE(governor
                    .decide(look(200 - static_cast<std::uint64_t>(step), seconds(50 * step)),
                            kMayGiveUp)
                    .step == GovernorStep::warn);
}

TEST_CASE("the patience begins again once the slot was below slot_give_up, or gone") {
    SlotGovernor governor;
    (void)governor.decide(look(65), kMayGiveUp);
    (void)governor.decide(look(64, seconds(50)), kMayGiveUp);
    CHECK(governor.decide(look(66, seconds(61)), kMayGiveUp).step == GovernorStep::warn);
    SlotLook gone = look(66, seconds(70));
    gone.exists = false;
    CHECK(governor.decide(gone, kMayGiveUp).step == GovernorStep::fine);
    CHECK(governor.decide(look(66, seconds(130)), kMayGiveUp).step == GovernorStep::warn);
    CHECK(governor.decide(look(66, seconds(190)), kMayGiveUp).step == GovernorStep::give_up);
}

TEST_CASE("a slot that is to be given up is more urgent than a disk below its reserve") {
    SlotGovernor governor;
    SlotLook now = look(65);
    now.store_available_bytes = 0;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::spill);
    now.at += SlotGovernor::kPatience;
    CHECK(governor.decide(now, kMayGiveUp).step == GovernorStep::give_up);
}

}  // namespace walvault::agent
