// LayeredStore: reads packs from wherever they lie.
#pragma once

#include <memory>
#include <vector>

#include "storage/object_store.h"

namespace walvault::storage {

// A pack that `first` does not have is read from the tiers, in their order; everything else is that
// of `first`. Absent is what none of them has: where a tier cannot be asked, that is the error. The
// tiers are as make_tier_store() makes them.
std::unique_ptr<ObjectStore> make_layered_store(std::unique_ptr<ObjectStore> first,
                                                std::vector<std::unique_ptr<ObjectStore>> tiers);

}  // namespace walvault::storage
