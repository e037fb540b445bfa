// Pools: the threads that block, so that the loop never does.
#pragma once

#include <algorithm>
#include <thread>

#include "base/asio.h"

namespace walvault::agent {

struct Pools {
    asio::thread_pool cpu{
        std::max(2u, std::thread::hardware_concurrency())};  // zstd, AEAD, hashing
    asio::thread_pool tail{1};   // writes and syncs of the tail: nothing else may stand before them
    asio::thread_pool store{1};  // the repository: ledger, index, closing
    asio::thread_pool backup{1};  // writes of base backup packs
};

}  // namespace walvault::agent
