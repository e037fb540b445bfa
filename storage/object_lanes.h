// ObjectLanes: puts objects beside the thread that asks for it, several at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace walvault::storage {

// One thread at a time.
class ObjectLanes {
public:
    struct Object {
        std::string name;
        bool may_be_there = false;  // put by somebody who did not come to tell of it
    };
    // Puts the object and returns how many bytes went. Called by several threads at once.
    using Put = std::function<Result<std::uint64_t>(const Object& object)>;
    struct Done {
        std::string name;
        Result<std::uint64_t> put_bytes;
    };
    // Waits for the puts that run.
    virtual ~ObjectLanes() = default;

    virtual bool has_room() const = 0;
    // Requires has_room().
    virtual void start(Object object) = 0;
    // What is done and was not taken yet; where that is nothing and something is under way, waits
    // for it for so long.
    virtual std::vector<Done> take_done(std::chrono::milliseconds patience) = 0;
};

// start() puts it and returns afterwards.
std::unique_ptr<ObjectLanes> make_inline_lane(ObjectLanes::Put put);
// By so many threads, which begin with the first object. At least one.
std::unique_ptr<ObjectLanes> make_object_lanes(ObjectLanes::Put put, unsigned count);

}  // namespace walvault::storage
