// Read-back: the proof that a tier has a pack, before the repository's directory lets it go.
#pragma once

#include <cstdint>

#include "proto/repository.pb.h"
#include "storage/object_store.h"

namespace walvault::storage {

// Reads the pack's size on the tier, and compares bytes: all of a manifest; of other packs
// 64 KiB from `draw` on, counted around its size. That each byte arrived, the tier proved by
// a digest when it was put. Success says that the tier has it. Errors: corrupt, naming both, if it
// is not there or is another; as the stores'. Of what is
// archived the size alone. Two requests.
Result<> read_back(ObjectStore& directory, ObjectStore& tier, const pb::PackInfo& pack,
                   std::uint64_t draw);

}  // namespace walvault::storage
