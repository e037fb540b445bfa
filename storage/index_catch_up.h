// Bringing an index up to the ledger's head, or making it anew from ledger and pack footers.
#pragma once

#include "storage/index.h"
#include "storage/keyring.h"

namespace walvault::storage {

// Applies every ledger entry after the index's watermark; the footers of packs are read from
// `packs_store`. A pack that is missing, damaged or archived, or that cannot be read now, is
// indexed without what only its footer tells, and logged: reading from it fails by name later. It
// is tried again at every call. Returns the head. Errors: invalid_argument if the watermark is not
// in this ledger; corrupt (the ledger), io.
Result<LedgerHead> catch_up(Index& index, ObjectStore& store, ObjectStore& packs_store,
                            const Id16& repository_id, const LedgerKeys& keys,
                            const Keyring& keyring);

}  // namespace walvault::storage
