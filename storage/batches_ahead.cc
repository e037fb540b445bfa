#include "storage/batches_ahead.h"

#include <algorithm>
#include <utility>

namespace walvault::storage {
namespace {

// Where batches are far, they are waited for at the same time; where they are near, the processors
// bound it.
std::size_t thread_count() {
    return std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2,
                                   BatchesAhead::kBatchesAheadMax);
}

}  // namespace

BatchesAhead::BatchesAhead(ObjectStore& store, const RowSought* sought, Next next)
    : store_(store), sought_(sought), next_(std::move(next)) {}

BatchesAhead::~BatchesAhead() {
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
        waiting_.clear();
    }
    asked_.notify_all();
    for (std::thread& thread : threads_)
        thread.join();
}

void BatchesAhead::begin(std::shared_ptr<const PackReader> pack) {
    pack_ = std::move(pack);
    ahead_.clear();
    std::lock_guard lock(mutex_);
    waiting_.clear();
}

Result<> BatchesAhead::take(int index, ByteBuffer& batch) {
    const std::shared_ptr<Reading> reading = find(index);
    ++taken_;
    if (!reading) {
        WV_CHECK(pack_->read_batch(store_, index, batch, sought_));
        read_ahead(index);
        return {};
    }
    read_ahead(index);
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&reading] { return reading->is_done; });
    batch = std::move(reading->batch);
    return std::move(reading->read);
}

// Takes it out, and those before it, which are not asked for any more.
std::shared_ptr<BatchesAhead::Reading> BatchesAhead::find(int index) {
    const auto found =
        std::ranges::find(ahead_, index, [](const auto& each) { return each->index; });
    if (found == ahead_.end()) return nullptr;
    const std::shared_ptr<Reading> reading = *found;
    ahead_.erase(ahead_.begin(), std::next(found));
    return reading;
}

void BatchesAhead::read_ahead(int index) {
    const std::size_t wanted = std::min(taken_, kBatchesAheadMax);
    while (ahead_.size() < wanted) {
        const auto next = next_(ahead_.empty() ? index : ahead_.back()->index);
        if (!next) return;
        auto reading = std::make_shared<Reading>(Reading{.pack = pack_, .index = *next});
        ahead_.push_back(reading);
        std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(reading));
        if (threads_.size() < std::min(ahead_.size(), thread_count()))
            threads_.emplace_back([this] { serve(); });
        asked_.notify_one();
    }
}

void BatchesAhead::serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
        asked_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
        if (ending_) return;
        const std::shared_ptr<Reading> reading = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        ByteBuffer batch;
        Result<> read = reading->pack->read_batch(store_, reading->index, batch, sought_);
        lock.lock();
        reading->batch = std::move(batch);
        reading->read = std::move(read);
        reading->is_done = true;
        ended_.notify_one();
    }
}

}  // namespace walvault::storage
