// Enters a restore in the repository's ledger: through the agent that holds it, or directly when
// none runs.
#pragma once

#include "agent/open_view.h"
#include "agent/restore_plan.h"

namespace walvault::agent {

struct RestoreReport {
    const RestorePlan* plan = nullptr;
    std::uint64_t restored_bytes = 0;
    std::chrono::microseconds duration{};
    bool confirmed = false;
};

// Errors: what kept it out of the ledger; the restore itself is done.
Result<> record_restore(const OpenedView& opened, const RestoreReport& report);

}  // namespace walvault::agent
