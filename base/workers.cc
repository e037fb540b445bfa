#include "base/workers.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace walvault {

Workers::Workers(std::size_t count_max) : count_max_(std::max<std::size_t>(count_max, 1)) {}

Workers::~Workers() {
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
    }
    handed_over_.notify_all();
    for (std::thread& thread : threads_)
        thread.join();
}

bool Workers::start(Work work) {
    std::lock_guard lock(mutex_);
    if (idle_ <= waiting_.size() && threads_.size() < count_max_) {
        try {
            threads_.emplace_back([this] { serve(); });
        } catch (const std::system_error&) {
            if (threads_.empty()) return false;
        }
    }
    waiting_.push_back(std::move(work));
    handed_over_.notify_one();
    return true;
}

void Workers::serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        handed_over_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
        --idle_;
        if (ending_) return;
        Work work = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        work();
        work = nullptr;  // what it holds goes before the lock is taken
        lock.lock();
    }
}

}  // namespace walvault
