// Pools: the threads that block, so that the loop does not.
#pragma once

#include <algorithm>
#include <thread>

#include "base/blocking.h"

namespace walvault::agent {

struct Pools {
    // Small writes and syncs of the tail that a commit waits for: on the loop itself where that is
    // a LeaderLoop. Never two at a time.
    Pool waited_for{1};
    bool flushes_here = false;  // as if that were a LeaderLoop's: in a simulation
    Pool cpu{std::max(2u, std::thread::hardware_concurrency())};  // zstd, AEAD, hashing
    Pool tail{1};     // writes and syncs of the tail: nothing else may stand before them
    Pool store{1};    // the repository: ledger, index, closing
    Pool backup{1};   // writes of base backup packs
    Pool expire{1};   // retention's look at the repository, which may take minutes
    Pool command{1};  // wal_fetch, which may take minutes
};

}  // namespace walvault::agent
