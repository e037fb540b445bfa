// Primed tracker: one that has seen the stored WAL that the next byte of a history hangs on.
#pragma once

#include "agent/pools.h"
#include "storage/repository.h"
#include "storage/wal_tracker.h"

namespace walvault::agent {

// Ready for the WAL that begins at the end of `history`. The record that it continues may have
// begun long before: decoding starts where it did. Errors: as the repository gives them.
Task<Result<storage::WalTracker>> primed_tracker(Pools& pools, storage::Repository& repository,
                                                 const storage::ClusterRecord& cluster,
                                                 const storage::HistoryRecord& history);

}  // namespace walvault::agent
