// Offloader: keeps a tier a copy of the repository that can be restored from at every moment.
//
// Order of writes: docs/durability.md. What the tier has is found by listing it, at the first call
// and after every error: nothing is remembered that could be wrong.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "proto/repository.pb.h"
#include "storage/keyring.h"
#include "storage/object_lanes.h"
#include "storage/object_store.h"
#include "storage/offload_plan.h"

namespace walvault::storage {

// True where `tier` is one of this repository, false where it can be made one: it is empty, or what
// was begun lies there. Writes nothing. Errors: refused if there is anything else, also a
// repository that an agent writes to; those of the stores.
Result<bool> is_tier(ObjectStore& repository, ObjectStore& tier, const MasterKey& master);

// Puts header, keyring and `name` of the tier into an empty one; what was begun is gone on with,
// and a tier of this repository is left as it is. Errors: as is_tier(); refused if it has another
// name.
Result<> initialize_tier(ObjectStore& repository, ObjectStore& tier, const MasterKey& master,
                         const std::string& name);

// What the offloader must know of the retention of its tier.
struct OffloadPlace {
    std::string name;  // as the ledger calls it; empty: a copy of the repository's directory
    // Whether the tier is to keep a pack. Called from the offloader's thread.
    std::function<Result<bool>(const pb::PackInfo& pack)> keeps =
        [](const pb::PackInfo&) -> Result<bool> { return true; };
    // What puts packs beside the offloader's thread, which keeps the rest to itself: tails, ledger.
    std::function<std::unique_ptr<ObjectLanes>(ObjectLanes::Put)> lanes = make_inline_lane;
    // Whether a round that does nothing but wait for packs is to end, since a newer snapshot has
    // WAL that somebody waits for. Called from the offloader's thread.
    std::function<bool()> is_hurried = [] { return false; };
};

// One thread at a time; every call blocks for both stores. The lanes of the place put packs also
// between the calls; ending it waits for those that they have begun.
class Offloader {
public:
    // `repository` and `tier` are plain stores, not TierStores. Asks nothing of the tier yet.
    // Errors: as open_repository_files().
    static Result<std::unique_ptr<Offloader>> open(ObjectStore& repository, ObjectStore& tier,
                                                   const MasterKey& master, OffloadPlace place);
    virtual ~Offloader() = default;

    struct Round {
        bool is_complete = false;  // the snapshot is on the tier
        std::uint64_t put_bytes = 0;
        std::uint64_t pending_bytes = 0;    // as far as the ledger was read
        std::uint64_t ledger_sequence = 0;  // the last entry that is on the tier
        // All WAL of the snapshot is on the tier, whatever else is still to come.
        bool has_wal = false;
        // False: nothing that was asked of the tier has been answered while packs are being put, or
        // a pack that could not be put is not there yet.
        bool is_reached = false;
        // Why a pack could not be put. What needs none was done all the same, and other packs that
        // had been begun go on.
        std::optional<Error> failure = {};
    };
    // Asks what the tier has, and puts nothing but keyrings. True: no entry of the ledger yet.
    // Errors: as offload().
    virtual Result<bool> is_empty() = 0;
    // Puts what the snapshot has and the tier does not, but packs that it is not to keep, and
    // removes what the ledger calls deleted there, until all is done or `goes_on` says no; asked
    // before each object, and while packs are put. Errors, but for those of packs: not_found (no
    // repository there yet), refused (another's, or another writer puts other things there),
    // wrong_key, corrupt, io, no_space, unavailable.
    virtual Result<Round> offload(const OffloadSnapshot& snapshot,
                                  const std::function<bool()>& goes_on) = 0;
};

}  // namespace walvault::storage
