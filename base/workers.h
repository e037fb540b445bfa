// Workers: threads that carry out what they are given, begun one by one as there is work for them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace walvault {

// May be used by any thread.
class Workers {
public:
    using Work = std::function<void()>;

    // No thread yet. `count_max`: at least one.
    explicit Workers(std::size_t count_max);
    // Drops what no thread has begun with, and waits for what is under way.
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Begun in the order in which it is handed over; returns at once. Work that throws ends the
    // process. False, and nothing is kept, where there is no thread and none can be started.
    [[nodiscard]] bool start(Work work);

private:
    void serve();

    const std::size_t count_max_;
    std::mutex mutex_;  // of what follows
    std::condition_variable handed_over_;
    std::deque<Work> waiting_;
    std::size_t idle_ = 0;
    bool ending_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace walvault
