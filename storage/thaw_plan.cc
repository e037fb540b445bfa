#include "storage/thaw_plan.h"

#include <algorithm>

namespace walvault::storage {
namespace {

using Kind = ArchiveState::Kind;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr double kBytesPerGb = 1e9;
constexpr double kRequestsPerPrice = 1000;

void take(ThawPlan& plan, ThawItem item) {
    plan.needed_bytes += item.size_bytes;
    switch (item.state.kind) {
        case Kind::ready:
            ++plan.ready_count;
            plan.ready_bytes += item.size_bytes;
            return;
        case Kind::thawed:
            plan.thawed.push_back(std::move(item));
            return;
        case Kind::thawing:
            plan.waiting.push_back(std::move(item));
            return;
        case Kind::archived:
            break;
    }
    ThawPlan::Class& of = plan.classes[item.state.storage_class];
    ++of.count;
    of.bytes += item.size_bytes;
    plan.ask_bytes += item.size_bytes;
    ++plan.request_count;
    plan.to_ask.push_back(std::move(item));
}

void note_time(ThawPlan& plan, const std::string& storage_class, const ThawPrice* price,
               ThawSpeed speed) {
    std::optional<seconds> time;
    if (price != nullptr && price->ready_after.count() > 0) {
        time = price->ready_after;
    } else {
        time = usual_thaw_time(storage_class, speed);
        plan.time_is_usual = true;
    }
    if (time) plan.ready_after = std::max(plan.ready_after.value_or(seconds(0)), *time);
}

}  // namespace

std::string_view to_string(ThawItem::Kind kind) {
    switch (kind) {
        case ThawItem::Kind::base:
            return "base";
        case ThawItem::Kind::manifest:
            return "manifest";
        case ThawItem::Kind::wal:
            return "wal";
        case ThawItem::Kind::other:
            break;
    }
    return "other";
}

std::optional<seconds> usual_thaw_time(const std::string& storage_class, ThawSpeed speed) {
    const bool deep = storage_class == "DEEP_ARCHIVE";
    if (!deep && !may_be_archived(storage_class)) return {};
    switch (speed) {
        case ThawSpeed::standard:
            return deep ? hours(12) : hours(5);
        case ThawSpeed::bulk:
            return deep ? hours(48) : hours(12);
        case ThawSpeed::expedited:
            break;
    }
    return deep ? std::optional<seconds>() : std::optional<seconds>(minutes(5));
}

ThawPlan plan_thaw(std::vector<ThawItem> items, const ThawPrices& prices,
                   const ThawOptions& options) {
    ThawPlan plan;
    plan.currency = prices.currency;
    std::ranges::stable_sort(items, {}, &ThawItem::name);
    for (std::size_t i = 0; i < items.size(); ++i)
        if (i == 0 || items[i].name != items[i - 1].name) take(plan, items[i]);

    for (const auto& [storage_class, of] : plan.classes) {
        if (storage_class == "DEEP_ARCHIVE" && options.speed == ThawSpeed::expedited)
            plan.too_fast.push_back(storage_class);
        auto found = prices.thaws.find({storage_class, options.speed});
        const ThawPrice* price = found == prices.thaws.end() ? nullptr : &found->second;
        note_time(plan, storage_class, price, options.speed);
        if (price == nullptr) {
            plan.unpriced.push_back("thawing " + storage_class + " at " +
                                    std::string(to_string(options.speed)));
            continue;
        }
        const double cost =
            static_cast<double>(of.bytes) / kBytesPerGb * price->per_gb +
            static_cast<double>(of.count) / kRequestsPerPrice * price->per_1000_requests;
        plan.thaw_cost = plan.thaw_cost.value_or(0) + cost;
    }
    if (prices.egress_per_gb)
        plan.egress_cost =
            static_cast<double>(plan.needed_bytes) / kBytesPerGb * *prices.egress_per_gb;
    return plan;
}

}  // namespace walvault::storage
