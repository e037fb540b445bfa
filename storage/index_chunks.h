// IndexChunks: where the chunks of base backups lie. A chunk lies where it was stored last.
#pragma once

#include <cstdint>

#include "proto/repository.pb.h"
#include "storage/index_store.h"

namespace walvault::storage {

// Within the batch of Index::apply(): a pack of chunks or a manifest, entered by entry `sequence`
// of the ledger, which is the latest so far.
void put_base_pack(IndexStore& store, const pb::PackInfo& pack, const pb::PackFooter& footer,
                   std::uint64_t sequence);
// The same for a pack that was entered long ago and whose footer is read only now: it takes no
// chunk from a pack that was entered behind it.
Result<> put_late_base_pack(IndexStore& store, const pb::PackInfo& pack,
                            const pb::PackFooter& footer);

}  // namespace walvault::storage
