// nearest_transactions: for an unknown transaction number, the commits whose numbers are closest.
#pragma once

#include "storage/repository_view.h"

namespace walvault::agent {

// The commit with the next lower and the one with the next higher number, as far as there are such.
// Reads at most the three packs or tails whose range of numbers is closest, and what follows the
// last one.
Result<std::vector<WalFinding>> nearest_transactions(storage::RepositoryView& view,
                                                     const std::string& cluster,
                                                     const storage::HistoryRecord& history,
                                                     Xid xid);

}  // namespace walvault::agent
