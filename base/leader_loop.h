// LeaderLoop: a loop whose thread may run a job that blocks for a moment: where the moment gets
// long, another thread takes the loop over.
//
// For a job of some 100 us that somebody waits for, two ways between threads cost as much again. So
// it runs on the loop; the follower, a second thread, looks every `patience` while such jobs run,
// and leads the loop from where the leader is held up (leader/followers, Schmidt et al. 2000).
// Handlers run one at a time throughout: a job that was overtaken touches, like one of a pool, only
// what is its own, and its result is posted.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "base/asio.h"
#include "base/clock.h"

namespace walvault {

class LeaderLoop {
public:
    explicit LeaderLoop(std::chrono::milliseconds patience = std::chrono::milliseconds(50))
        : patience_(patience) {}
    LeaderLoop(const LeaderLoop&) = delete;
    LeaderLoop& operator=(const LeaderLoop&) = delete;

    asio::io_context& context() { return context_; }

    // Runs handlers until none is left to come, then returns, when a job that still blocks has
    // ended too. Once.
    void run();

    // Around a job that may block, in a handler that was posted for it. At most two patiences go by
    // until the other handlers run again.
    class Blocking {
    public:
        // `loop` null: nothing is marked.
        explicit Blocking(LeaderLoop* loop);
        ~Blocking() { (void)end(); }
        // The job is over. True where this thread was watched and not overtaken: then it may go on
        // as the handler of the loop that it is. Afterwards false.
        bool end();
        Blocking(const Blocking&) = delete;
        Blocking& operator=(const Blocking&) = delete;

    private:
        LeaderLoop* loop_;
        int me_ = 0;
    };

private:
    void serve(int me);
    bool wait_to_lead(int me);

    std::chrono::milliseconds patience_;
    asio::io_context context_{2};
    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<int> leader_{0};
    bool ended_ = false;
    bool watching_ = false;        // the follower wakes by itself
    std::uint64_t job_count_ = 0;  // begun so far
    std::optional<SteadyTime> blocked_since_;
};

}  // namespace walvault
