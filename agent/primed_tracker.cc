#include "agent/primed_tracker.h"

#include "base/blocking.h"
#include "proto/server_version.h"

namespace walvault::agent {

Task<Result<storage::WalTracker>> primed_tracker(Pools& pools, storage::Repository& repository,
                                                 const storage::ClusterRecord& cluster,
                                                 const storage::HistoryRecord& history) {
    auto prime = [&repository, cluster, history]() -> Result<storage::WalTracker> {
        WV_TRY(Lsn from, repository.wal().decode_start(history.id, history.end_lsn));
        WalDecoderOptions options{.server_major = server_major_of(cluster.server_version_num),
                                  .system_identifier = cluster.system_identifier,
                                  .segment_bytes = cluster.segment_bytes,
                                  .timeline = history.timeline};
        WV_TRY(std::int64_t largest, repository.wal().largest_at_us(history.id));
        WV_TRY(storage::WalTracker tracker,
               storage::WalTracker::open(options, from, largest, history.end_lsn));
        WV_CHECK(repository.wal().read(history.id, from, history.end_lsn,
                                       [&](ByteSpan wal) { return tracker.prime(wal); }));
        return tracker;
    };
    co_return co_await run_on(pools.store, std::move(prime));
}

}  // namespace walvault::agent
