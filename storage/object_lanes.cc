#include "storage/object_lanes.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/invariant.h"
#include "base/workers.h"

namespace walvault::storage {
namespace {

class InlineLane final : public ObjectLanes {
public:
    explicit InlineLane(Put put) : put_(std::move(put)) {}

    bool has_room() const override { return done_.empty(); }
    void start(Object object) override {
        WV_ASSERT(has_room());
        done_.push_back({object.name, put_(object)});
    }
    std::vector<Done> take_done(std::chrono::milliseconds) override {
        return std::exchange(done_, {});
    }

private:
    Put put_;
    std::vector<Done> done_;
};

class ThreadLanes final : public ObjectLanes {
public:
    ThreadLanes(Put put, unsigned count)
        : put_(std::move(put)), count_(std::max(count, 1U)), workers_(count_) {}

    bool has_room() const override {
        std::lock_guard lock(mutex_);
        return under_way_ < count_;
    }

    void start(Object object) override {
        {
            std::lock_guard lock(mutex_);
            WV_ASSERT(under_way_ < count_);
            ++under_way_;
        }
        // Without threads it goes all the same, one after the other.
        if (!workers_.start([this, object] { put_one(object); })) put_one(object);
    }

    std::vector<Done> take_done(std::chrono::milliseconds patience) override {
        std::unique_lock lock(mutex_);
        if (under_way_ > 0) ended_.wait_for(lock, patience, [this] { return !done_.empty(); });
        return std::exchange(done_, {});
    }

private:
    void put_one(const Object& object) {
        Done done{object.name, put_(object)};
        std::lock_guard lock(mutex_);
        --under_way_;
        done_.push_back(std::move(done));
        ended_.notify_one();
    }

    Put put_;
    std::size_t count_;
    mutable std::mutex mutex_;  // of what follows
    std::condition_variable ended_;
    std::vector<Done> done_;
    std::size_t under_way_ = 0;  // waiting, or being put
    Workers workers_;            // the first to end: they use what is above
};

}  // namespace

std::unique_ptr<ObjectLanes> make_inline_lane(ObjectLanes::Put put) {
    return std::make_unique<InlineLane>(std::move(put));
}
std::unique_ptr<ObjectLanes> make_object_lanes(ObjectLanes::Put put, unsigned count) {
    return std::make_unique<ThreadLanes>(std::move(put), count);
}

}  // namespace walvault::storage
