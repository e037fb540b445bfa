// WalComparison: the server's WAL against what is stored, byte by byte, while it streams.
//
// The only proof that a server continues a history: system identifier and timeline can be shared by
// two (a disk rolled back, two clones promoted).
#pragma once

#include <optional>

#include "agent/pools.h"
#include "storage/repository.h"

namespace walvault::agent {

class WalComparison {
public:
    // What is to be equal: [from, to) of the lineage of `history`; where it has a parent, bytes
    // behind its own end are the parent's up to fork_lsn. Nothing to compare where to <= from.
    WalComparison(Pools& pools, storage::Repository& repository,
                  const storage::HistoryRecord& history, Lsn from);

    // Compares what of `wal`, which starts at next_lsn(), there is something stored for. Gives the
    // first byte that differs, or nothing. Errors: as reading the repository.
    Task<Result<std::optional<Lsn>>> take(ByteSpan wal);

    Lsn from_lsn() const { return from_; }
    Lsn next_lsn() const { return next_; }  // all before it is equal
    Lsn end_lsn() const { return to_; }
    bool is_complete() const { return next_ >= to_; }

private:
    Task<Result<>> load();

    Pools& pools_;
    storage::Repository& repository_;
    storage::HistoryRecord history_;
    Lsn from_, next_, to_;
    ByteBuffer stored_;
    Lsn stored_start_;
};

}  // namespace walvault::agent
