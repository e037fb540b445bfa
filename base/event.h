// Event: wakes coroutines of the loop that wait for a change; a timer that is cancelled.
#pragma once

#include <chrono>
#include <memory>

#include "base/asio.h"

namespace walvault {

// notify() wakes everyone waiting now. A waiter re-checks its condition: wake-ups may be spurious.
class Event {
public:
    explicit Event(asio::any_io_executor executor)
        : timer_(std::make_shared<asio::steady_timer>(std::move(executor))) {
        timer_->expires_at(asio::steady_timer::time_point::max());
    }

    void notify() { timer_->expires_at(asio::steady_timer::time_point::max()); }

    Task<> wait();

private:
    std::shared_ptr<asio::steady_timer> timer_;
};

// The timers of wait_for() and sleep_for() where time is not the machine's: a simulation has one.
class TimerSource {
public:
    virtual ~TimerSource() = default;
    // Notifies `event` after `delay`, unless it is gone by then.
    virtual void notify_after(std::chrono::steady_clock::duration delay,
                              std::weak_ptr<Event> event) = 0;
};
// Of the whole process; null: the machine's timers. Set before any loop runs.
inline TimerSource* timer_source = nullptr;

// Waits for `event` or `timeout`, whichever is first.
Task<> wait_for(Event& event, std::chrono::steady_clock::duration timeout);
Task<> sleep_for(std::chrono::steady_clock::duration duration);

}  // namespace walvault
