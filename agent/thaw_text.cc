#include "agent/thaw_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/render.h"

namespace walvault::agent {
namespace {

using storage::ThawItem;
using storage::ThawOptions;
using storage::ThawPlan;

std::string objects_text(std::uint64_t count) {
    return format_count(count) + (count == 1 ? " object" : " objects");
}

std::uint64_t bytes_of(const std::vector<ThawItem>& items) {
    std::uint64_t bytes = 0;
    for (const ThawItem& item : items)
        bytes += item.size_bytes;
    return bytes;
}

std::string time_text(const ThawPlan& plan, const ThawOptions& options) {
    const std::string at = " at " + std::string(to_string(options.speed)) + " speed";
    if (!plan.ready_after) return "not known" + at;
    return "up to " + format_duration(*plan.ready_after) + at +
           (plan.time_is_usual ? ", as S3 names it" : ", by [archive] prices");
}

std::string money(double amount, const std::string& currency) {
    if (amount > 0 && amount < 0.01) return "less than 0.01 " + printable(currency);
    return fmt::format("{:.2f} {}", amount, printable(currency));
}

std::string cost_text(const ThawPlan& plan) {
    std::string text;
    if (plan.thaw_cost) text = money(*plan.thaw_cost, plan.currency) + " for thawing";
    if (plan.egress_cost)
        text += (text.empty() ? "" : ", ") + money(*plan.egress_cost, plan.currency) + " for " +
                format_size(plan.needed_bytes) + " going out";
    if (text.empty()) return "no prices configured ([archive] prices)";
    text += "; an estimate";
    for (const std::string& what : plan.unpriced)
        text += ", without a price for " + printable(what);
    return text;
}

nlohmann::ordered_json item_json(const ThawItem& item) {
    return {{"name", item.name},
            {"kind", to_string(item.kind)},
            {"bytes", item.size_bytes},
            {"class", item.state.storage_class},
            {"state", to_string(item.state.kind)}};
}

}  // namespace

std::string thaw_text(const ThawPlan& plan, const ThawOptions& options) {
    if (plan.is_ready()) return {};
    std::string text;
    std::string classes;
    for (const auto& [name, of] : plan.classes)
        classes += fmt::format("{}{} {}", classes.empty() ? "" : ", ", format_count(of.count),
                               printable(name));
    if (!plan.to_ask.empty())
        text += "  archived   " + objects_text(plan.to_ask.size()) + ", " +
                format_size(plan.ask_bytes) + ", must be thawed first (" + classes + ")\n";
    if (!plan.waiting.empty())
        text += "  thawing    " + objects_text(plan.waiting.size()) + ", " +
                format_size(bytes_of(plan.waiting)) + ", asked for before\n";
    if (plan.to_ask.empty()) return text;
    text += "  thaw time  " + time_text(plan, options) + "\n";
    text += "  thaw cost  " + cost_text(plan) + "\n";
    text += fmt::format("  thawed     copies stay {} days, longer if the restore takes longer\n",
                        options.days);
    return text;
}

nlohmann::ordered_json thaw_json(const ThawPlan& plan, const ThawOptions& options) {
    nlohmann::ordered_json json{{"ask_count", plan.to_ask.size()},
                                {"ask_bytes", plan.ask_bytes},
                                {"waiting_count", plan.waiting.size()},
                                {"thawed_count", plan.thawed.size()},
                                {"ready_count", plan.ready_count},
                                {"needed_bytes", plan.needed_bytes},
                                {"requests", plan.request_count},
                                {"speed", to_string(options.speed)},
                                {"days", options.days}};
    json["ready_after_s"] = nullptr;
    if (plan.ready_after) json["ready_after_s"] = plan.ready_after->count();
    json["time_is_usual"] = plan.time_is_usual;
    json["cost"] = nullptr;
    if (plan.thaw_cost || plan.egress_cost) {
        json["cost"] = {{"currency", plan.currency}};
        json["cost"]["thaw"] = nullptr;
        json["cost"]["egress"] = nullptr;
        if (plan.thaw_cost) json["cost"]["thaw"] = *plan.thaw_cost;
        if (plan.egress_cost) json["cost"]["egress"] = *plan.egress_cost;
    }
    json["unpriced"] = plan.unpriced;
    json["objects"] = nlohmann::ordered_json::array();
    for (const auto* items : {&plan.to_ask, &plan.waiting, &plan.thawed})
        for (const ThawItem& item : *items)
            json["objects"].push_back(item_json(item));
    return json;
}

}  // namespace walvault::agent
