// Lease: the word of somebody who reads a repository that nothing he may need is to be deleted.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "storage/object_store.h"

namespace walvault::storage {

struct Lease {
    std::string name;  // of the object: "lease/<id>.<serial>"
    std::string who;   // for people
    WallTime since;
    WallTime until;
};

// Those that have not run out, by name. Errors: corrupt for one that cannot be read, naming it: it
// may be somebody's; as the store's.
Result<std::vector<Lease>> valid_leases(ObjectStore& store, WallTime now);

// Renewed by a thread of its own until it is destroyed, and then removed; one that its process left
// behind runs out by itself. The store outlives it.
class HeldLease {
public:
    static constexpr std::chrono::seconds kLasts{3600};

    // `placed` is called with the name of each object that was made, to give it to who must read
    // it. Errors: as ObjectStore::put, and those of `placed`.
    static Result<std::unique_ptr<HeldLease>> take(
        ObjectStore& store, const std::string& who, const Clock& clock,
        std::function<Result<>(const std::string& name)> placed = {},
        std::chrono::seconds lasts = kLasts);
    ~HeldLease();

private:
    struct State;
    explicit HeldLease(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
