// What a cluster's packs take, summed up in the index.
#pragma once

#include <string>
#include <vector>

#include "storage/index_store.h"
#include "storage/repository_view.h"

namespace walvault::storage {

Result<RepositoryView::Totals> totals_of(const IndexStore& store, const std::string& cluster);
// Inside of a batch that changes no totals otherwise. `sign`: 1, or -1 for packs that are gone.
Result<> add_to_totals(IndexStore& store, const std::vector<const pb::PackInfo*>& packs, int sign);

}  // namespace walvault::storage
