// IndexHolds: the part of the index that knows the holds: orders that nothing they cover may
// expire.
#pragma once

#include <string>
#include <vector>

#include "proto/repository.pb.h"
#include "storage/index_store.h"
#include "storage/repository_view.h"

namespace walvault::storage {

// hold/<cluster>/<id> -> StoredHold, until it is released.
class IndexHolds {
public:
    explicit IndexHolds(IndexStore& store) : store_(store) {}

    // As RepositoryView::holds(). Errors: corrupt, io.
    Result<std::vector<HoldRecord>> all(const std::string& cluster) const;

    // Within the batch of RocksIndex::apply(). False: the entry is not of holds.
    bool apply(const pb::LedgerEntry& entry);

private:
    IndexStore& store_;
};

}  // namespace walvault::storage
