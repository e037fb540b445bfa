// The manifest of a base backup, out of its pack.
#pragma once

#include <functional>

#include "storage/pack_reader.h"

namespace walvault::storage {

// Calls `on_head` once, then `on_file` for each entry in manifest order. Reads frame by frame.
// Errors: corrupt, not_found, io, what a callback returned.
Result<> read_manifest_pack(ObjectStore& store, const PackReader& reader,
                            const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                            const std::function<Result<>(pb::ManifestFile&)>& on_file);

}  // namespace walvault::storage
