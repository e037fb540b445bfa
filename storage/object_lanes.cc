#include "storage/object_lanes.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/invariant.h"

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
    ThreadLanes(Put put, unsigned count) : put_(std::move(put)), count_(std::max(count, 1U)) {}

    ~ThreadLanes() override {
        {
            std::lock_guard lock(mutex_);
            ending_ = true;
            waiting_.clear();
        }
        asked_.notify_all();
        for (std::thread& thread : threads_)
            thread.join();
    }

    bool has_room() const override {
        std::lock_guard lock(mutex_);
        return under_way_ < count_;
    }

    void start(Object object) override {
        std::lock_guard lock(mutex_);
        WV_ASSERT(under_way_ < count_);
        ++under_way_;
        waiting_.push_back(std::move(object));
        if (threads_.size() < under_way_) threads_.emplace_back([this] { put_them(); });
        asked_.notify_one();
    }

    std::vector<Done> take_done(std::chrono::milliseconds patience) override {
        std::unique_lock lock(mutex_);
        if (under_way_ > 0) ended_.wait_for(lock, patience, [this] { return !done_.empty(); });
        return std::exchange(done_, {});
    }

private:
    void put_them() {
        std::unique_lock lock(mutex_);
        for (;;) {
            asked_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
            if (ending_) return;
            const Object object = std::move(waiting_.front());
            waiting_.pop_front();
            lock.unlock();
            Done done{object.name, put_(object)};
            lock.lock();
            --under_way_;
            done_.push_back(std::move(done));
            ended_.notify_one();
        }
    }

    Put put_;
    std::size_t count_;
    mutable std::mutex mutex_;  // of what follows
    std::condition_variable asked_;
    std::condition_variable ended_;
    std::deque<Object> waiting_;
    std::vector<Done> done_;
    std::size_t under_way_ = 0;  // waiting, or being put
    bool ending_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<ObjectLanes> make_inline_lane(ObjectLanes::Put put) {
    return std::make_unique<InlineLane>(std::move(put));
}
std::unique_ptr<ObjectLanes> make_object_lanes(ObjectLanes::Put put, unsigned count) {
    return std::make_unique<ThreadLanes>(std::move(put), count);
}

}  // namespace walvault::storage
