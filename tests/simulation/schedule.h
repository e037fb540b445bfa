// Schedule: virtual time, and everything of a simulation on one thread in an order that its seed
// draws.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/blocking.h"
#include "base/clock.h"
#include "base/event.h"
#include "tests/simulation/random.h"

namespace walvault::simulation {

using Duration = std::chrono::steady_clock::duration;

// Time moves only when nothing can run any more, to what is due next.
class VirtualTime final : public Clock, public TimerSource {
public:
    VirtualTime() { timer_source = this; }
    ~VirtualTime() override { timer_source = nullptr; }

    WallTime now() const override {
        return WallTime(std::chrono::duration_cast<Micros>(steady_.time_since_epoch()));
    }
    SteadyTime steady_now() const override { return steady_; }
    void notify_after(Duration delay, std::weak_ptr<Event> event) override;
    void call_after(Duration delay, std::function<void()> call);

    // The time of the next call; nothing: none is left.
    std::optional<SteadyTime> next_at() const;
    void advance_to(SteadyTime at) { steady_ = std::max(steady_, at); }
    // Runs the calls that are due.
    void run_due();

private:
    // After the epoch of PostgreSQL, which counts from 2000 on.
    SteadyTime steady_{std::chrono::hours(24 * 365 * 56)};
    std::uint64_t count_ = 0;
    std::map<std::pair<SteadyTime, std::uint64_t>, std::function<void()>> calls_;
};

// Stands for a pool of threads: jobs wait here until the schedule takes one, some for a while, as
// the disk lets them wait.
class JobQueue {
public:
    JobQueue(asio::execution_context& context, const VirtualTime& time, Random& random,
             std::size_t threads)
        : context_(context), time_(time), random_(random), threads_(threads) {}

    asio::any_io_executor executor();
    bool is_ready() const;
    std::optional<SteadyTime> ready_at() const;
    // Runs one of those that could be first. May throw Crash.
    void run_one();
    // Forgets what is queued.
    void clear();
    void set_slowest(Duration slowest) { slowest_ = slowest; }

private:
    class Executor;
    struct Job {
        std::function<void()> work;
        SteadyTime ready_at;
    };
    void push(std::function<void()> work);
    std::vector<std::size_t> runnable() const;

    asio::execution_context& context_;
    const VirtualTime& time_;
    Random& random_;
    std::size_t threads_;
    Duration slowest_{};
    std::deque<Job> jobs_;
};

}  // namespace walvault::simulation
