// RepoCopy: a whole repository, or a copy of one, into an empty place.
#pragma once

#include <cstdint>
#include <string>

#include "agent/progress_line.h"
#include "storage/keyring.h"
#include "storage/object_store.h"

namespace walvault::agent {

struct RepoCopied {
    std::string repository;  // its id, in hex
    std::uint64_t ledger_sequence = 0;
    std::uint64_t put_bytes = 0;
};

// What `from` holds at a moment while this runs: its ledger up to an entry, all that this names,
// and of open tails all whole frames. At every moment `to` can be restored from; where it is broken
// off, the same call goes on. `from`: objects of a repository, beside its agent or without, or of a
// tier. `to`: plain objects, of which `at_once` are put at once, where `from` is near. Errors:
// refused unless `to` is empty or was begun from the same repository, and where an agent writes to
// it; archived; those of the stores, wrong_key, corrupt.
Result<RepoCopied> copy_repository(storage::ObjectStore& from, storage::ObjectStore& to,
                                   unsigned at_once, const storage::MasterKey& master,
                                   ProgressLine& progress);

}  // namespace walvault::agent
