#include "agent/slot_governor.h"

#include <fmt/format.h>

#include "agent/render.h"

namespace walvault::agent {
namespace {

// Of what the server allows the slot: with less than this part of it left, there is a warning.
constexpr std::uint64_t kSafePart = 4;

std::optional<std::string> space_is_short(const SlotLook& look, const SlotLimits& limits) {
    const auto reserve = static_cast<std::uint64_t>(static_cast<double>(look.store_size_bytes) *
                                                    limits.reserve_ratio);
    if (look.store_size_bytes == 0 || look.store_available_bytes >= reserve) return std::nullopt;
    return fmt::format("the repository's disk has {} free, less than the reserve of {}",
                       format_size(look.store_available_bytes), format_size(reserve));
}

std::optional<std::string> slot_holds_much(const SlotLook& look, const SlotLimits& limits) {
    if (!look.exists) return std::nullopt;
    if (look.retained_bytes > limits.warn_bytes)
        return fmt::format("the slot holds {} of WAL on the server, more than slot_limit, {}",
                           format_size(look.retained_bytes), format_size(limits.warn_bytes));
    if (!look.safe_bytes) return std::nullopt;
    const std::uint64_t safe =
        *look.safe_bytes < 0 ? 0 : static_cast<std::uint64_t>(*look.safe_bytes);
    if (safe >= (safe + look.retained_bytes) / kSafePart) return std::nullopt;
    return fmt::format("the slot holds {} of WAL on the server, which invalidates it {} further on",
                       format_size(look.retained_bytes), format_size(safe));
}

}  // namespace

std::string_view to_string(GovernorStep step) {
    switch (step) {
        case GovernorStep::fine:
            return "fine";
        case GovernorStep::warn:
            return "warn";
        case GovernorStep::spill:
            return "spill";
        case GovernorStep::give_up:
            return "give_up";
    }
    return "unknown";
}

bool SlotGovernor::is_stuck(const SlotLook& look, const SlotLimits& limits) {
    if (!look.exists || !limits.give_up_bytes || look.retained_bytes <= *limits.give_up_bytes) {
        least_bytes_.reset();
        return false;
    }
    if (!least_bytes_ || look.retained_bytes < *least_bytes_) {
        least_bytes_ = look.retained_bytes;
        least_at_ = look.at;
    }
    return look.at - least_at_ >= kPatience;
}

Verdict SlotGovernor::decide(const SlotLook& look, const SlotLimits& limits) {
    if (is_stuck(look, limits))
        return {GovernorStep::give_up,
                fmt::format("the slot holds {} of WAL on the server, more than slot_give_up, {}, "
                            "and no less for {} s",
                            format_size(look.retained_bytes), format_size(*limits.give_up_bytes),
                            kPatience.count())};
    if (auto reason = space_is_short(look, limits)) return {GovernorStep::spill, *reason};
    if (auto reason = slot_holds_much(look, limits)) return {GovernorStep::warn, *reason};
    return {};
}

}  // namespace walvault::agent
