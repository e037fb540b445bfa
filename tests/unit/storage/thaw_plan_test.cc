#include "storage/thaw_plan.h"

#include <doctest/doctest.h>

#include "base/bytes.h"

namespace walvault::storage {
namespace {

using Kind = ArchiveState::Kind;
using std::chrono::hours;

constexpr std::uint64_t kGb = 1'000'000'000;

ThawItem item(const std::string& name, std::uint64_t bytes, const std::string& storage_class,
              Kind kind) {
    return {name, ThawItem::Kind::wal, bytes, {kind, storage_class, bytes, {}}};
}

ThawPrices prices() {
    ThawPrices made;
    made.thaws[{"GLACIER", ThawSpeed::standard}] = {0.01, 0.05, hours(4)};
    made.thaws[{"DEEP_ARCHIVE", ThawSpeed::standard}] = {0.02, 0.10, hours(12)};
    return made;
}

TEST_CASE("what is archived is asked for, what is thawing waited for, what is ready read") {
    const ThawPlan plan = plan_thaw(
        {item("d", 4 * kGb, "GLACIER", Kind::archived), item("c", 3 * kGb, "STANDARD", Kind::ready),
         item("b", 2 * kGb, "GLACIER", Kind::thawing), item("a", kGb, "GLACIER", Kind::thawed),
         item("d", 4 * kGb, "GLACIER", Kind::archived),
         item("e", 10 * kGb, "DEEP_ARCHIVE", Kind::archived)},
        prices(), {});
    REQUIRE(plan.to_ask.size() == 2);
    CHECK(plan.to_ask[0].name == "d");
    CHECK(plan.waiting.size() == 1);
    CHECK(plan.thawed.size() == 1);
    CHECK(plan.ready_count == 1);
    CHECK(plan.ask_bytes == 14 * kGb);
    CHECK(plan.needed_bytes == 20 * kGb);
    CHECK(plan.request_count == 2);
    CHECK(plan.classes.at("GLACIER").bytes == 4 * kGb);
    CHECK(plan.ready_after == hours(12));
    CHECK_FALSE(plan.time_is_usual);
    // 4 GB of 0.01, 10 GB of 0.02, a request of each.
    CHECK(*plan.thaw_cost == doctest::Approx(0.04 + 0.2 + 0.00005 + 0.0001));
    CHECK_FALSE(plan.egress_cost.has_value());
    CHECK(plan.unpriced.empty());
    CHECK_FALSE(plan.is_ready());
}

TEST_CASE("without a table there is no cost, and the time is what S3 names") {
    const ThawPlan plan =
        plan_thaw({item("a", kGb, "GLACIER", Kind::archived)}, {}, {ThawSpeed::bulk});
    CHECK_FALSE(plan.thaw_cost.has_value());
    CHECK(plan.unpriced == std::vector<std::string>{"thawing GLACIER at bulk"});
    CHECK(plan.ready_after == hours(12));
    CHECK(plan.time_is_usual);
}

TEST_CASE("a price is of one speed, and what goes out is paid for whether it was archived or not") {
    ThawPrices table = prices();
    table.egress_per_gb = 0.09;
    const ThawPlan plan = plan_thaw(
        {item("a", kGb, "GLACIER", Kind::archived), item("b", 9 * kGb, "STANDARD", Kind::ready)},
        table, {ThawSpeed::expedited});
    CHECK_FALSE(plan.thaw_cost.has_value());
    CHECK(*plan.egress_cost == doctest::Approx(0.9));
    CHECK(plan.unpriced.size() == 1);
}

TEST_CASE("a speed that a class does not know is told before anything is asked") {
    const ThawPlan plan =
        plan_thaw({item("a", kGb, "DEEP_ARCHIVE", Kind::archived)}, {}, {ThawSpeed::expedited});
    CHECK(plan.too_fast == std::vector<std::string>{"DEEP_ARCHIVE"});
    CHECK_FALSE(plan.ready_after.has_value());
}

TEST_CASE("where nothing is archived there is nothing to do") {
    const ThawPlan plan = plan_thaw(
        {item("a", kGb, "GLACIER_IR", Kind::ready), item("b", kGb, "GLACIER", Kind::thawed)},
        prices(), {});
    CHECK(plan.is_ready());
    CHECK(plan.request_count == 0);
    CHECK_FALSE(plan.ready_after.has_value());
    CHECK(plan_thaw({}, {}, {}).is_ready());
}

}  // namespace
}  // namespace walvault::storage
