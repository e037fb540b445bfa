// Hold: an order that nothing of what it covers expires: asked for, proved to be there, and
// entered.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "agent/config.h"
#include "storage/repository_view.h"

namespace walvault::agent {

// Either a base, or moments: see storage::HoldRecord.
struct HoldWanted {
    std::string backup_id;
    std::optional<WallTime> from, to, until;
    std::string reason;
    std::string actor;  // who asks, for the ledger
};

inline constexpr std::size_t kHoldReasonBytesMax = 1000;

// What needs no repository: one of the two, in order, not over before it began, with a reason.
// Errors: invalid_argument.
Result<> check_hold(const HoldWanted& wanted, WallTime now);

// Of a hold, or of its release: not empty, at most kHoldReasonBytesMax, UTF-8. Errors:
// invalid_argument.
Result<> check_reason(const std::string& reason);

// Proves that what is to be held is stored and restorable, at any place. Times in messages are of
// `zone`. Errors: not_found (no such base), outside_window (no base ended by the first moment; the
// hint names what can be held); as the view's.
Result<> require_holdable(storage::RepositoryView& view, const std::string& cluster,
                          const HoldWanted& wanted, const std::string& zone);
// The same in views of its own, and that one place alone has it: each keeps what it has of a hold.
// Blocking.
Result<> require_holdable(const Config& config, const std::string& cluster,
                          const HoldWanted& wanted);

// That the other places have, each for each hold that is not over, what it keeps. Blocking.
// Errors: refused, naming the hold.
Result<> require_held_without(const Config& config, const std::string& place, WallTime now);

pb::HoldPlaced placed_of(const std::string& cluster, const HoldWanted& wanted);

// Over the agent's socket, and back. Errors: invalid_argument.
nlohmann::json json_of(const HoldWanted& wanted);
Result<HoldWanted> hold_wanted_of(const nlohmann::json& body);

// For answers.
nlohmann::ordered_json json_of(const storage::HoldRecord& hold, WallTime now);
// "base 20261127T…" or "2026-… to …".
std::string covered_text(const storage::HoldRecord& hold, const std::string& zone);

}  // namespace walvault::agent
