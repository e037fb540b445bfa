// SlotGovernor: what the agent does about the WAL that its slot holds on the server and about the
// space left in the repository; decided from values, it knows no clock and does no I/O.
//
// Four steps, each worse than the one before: fine; warn; spill, where WAL uses up the reserve of
// the repository's disk and base backups stop; give up, where the slot is dropped so that the
// server can free its disk, at the price of a gap. The last only where the configuration allows it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace walvault::agent {

enum class GovernorStep { fine, warn, spill, give_up };
inline constexpr std::array kGovernorSteps{GovernorStep::fine, GovernorStep::warn,
                                           GovernorStep::spill, GovernorStep::give_up};
// The label values of walvault_slot_governor.
std::string_view to_string(GovernorStep step);

struct SlotLimits {
    std::uint64_t warn_bytes = 0;                // slot_limit
    std::optional<std::uint64_t> give_up_bytes;  // slot_give_up; nothing: never
    double reserve_ratio = 0;                    // of the repository's disk
};

// One look at both sides.
struct SlotLook {
    SteadyTime at{};
    bool exists = false;               // the slot
    std::uint64_t retained_bytes = 0;  // WAL it holds on the server
    // What the server may write before it invalidates the slot; nothing: it sets no limit.
    std::optional<std::int64_t> safe_bytes;
    // Of the repository's file system; a size of zero: not known.
    std::uint64_t store_available_bytes = 0;
    std::uint64_t store_size_bytes = 0;
};

struct Verdict {
    GovernorStep step = GovernorStep::fine;
    std::string reason;  // a clause with both numbers; empty when fine
};

class SlotGovernor {
public:
    // A slot above its last limit is given up only after it has held no less than before for so
    // long: an agent that catches up is left to it.
    static constexpr std::chrono::seconds kPatience{60};

    // Looks come in the order of time. The worst step of those that apply.
    Verdict decide(const SlotLook& look, const SlotLimits& limits);
    // At the last look the slot held more than slot_give_up.
    bool is_above_last_limit() const { return least_bytes_.has_value(); }

private:
    bool is_stuck(const SlotLook& look, const SlotLimits& limits);

    // While above the last limit: the least that was held, and since when it has been the least.
    std::optional<std::uint64_t> least_bytes_;
    SteadyTime least_at_{};
};

}  // namespace walvault::agent
