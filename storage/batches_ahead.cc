#include "storage/batches_ahead.h"

#include <algorithm>
#include <thread>
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
    : store_(store), sought_(sought), next_(std::move(next)), workers_(thread_count()) {}

void BatchesAhead::begin(std::shared_ptr<const PackReader> pack) {
    pack_ = std::move(pack);
    forget(ahead_.size());
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
    if (reading->thrown) std::rethrow_exception(reading->thrown);
    batch = std::move(reading->batch);
    return std::move(reading->read);
}

// Takes it out; those before it, or all where it is not among them, are not asked for any more.
std::shared_ptr<BatchesAhead::Reading> BatchesAhead::find(int index) {
    const auto found =
        std::ranges::find(ahead_, index, [](const auto& each) { return each->index; });
    forget(static_cast<std::size_t>(found - ahead_.begin()));
    if (ahead_.empty()) return nullptr;
    const std::shared_ptr<Reading> reading = std::move(ahead_.front());
    ahead_.pop_front();
    return reading;
}

// The first `count` of those that are read ahead; what no thread has begun with is not read.
void BatchesAhead::forget(std::size_t count) {
    std::lock_guard lock(mutex_);
    for (; count > 0; --count) {
        ahead_.front()->is_forgotten = true;
        ahead_.pop_front();
    }
}

void BatchesAhead::read_ahead(int index) {
    const std::size_t wanted = std::min(taken_ - 1, kBatchesAheadMax);
    while (ahead_.size() < wanted) {
        const auto next = next_(ahead_.empty() ? index : ahead_.back()->index);
        if (!next) return;
        auto reading = std::make_shared<Reading>(Reading{.pack = pack_, .index = *next});
        if (!workers_.start([this, reading] { read(*reading); })) return;
        ahead_.push_back(std::move(reading));
    }
}

// On a thread. What is read is nobody else's before it is done.
void BatchesAhead::read(Reading& reading) {
    {
        std::lock_guard lock(mutex_);
        if (reading.is_forgotten) return;
    }
    try {
        reading.read = reading.pack->read_batch(store_, reading.index, reading.batch, sought_);
    } catch (...) {
        reading.thrown = std::current_exception();
    }
    std::lock_guard lock(mutex_);
    reading.is_done = true;
    ended_.notify_one();
}

}  // namespace walvault::storage
