// TaskGroup: owns the coroutines it starts; join() waits for all of them. The only user of
// asio::detached.
#pragma once

#include <memory>

#include "base/event.h"

namespace walvault {

class TaskGroup {
public:
    explicit TaskGroup(asio::any_io_executor executor)
        : executor_(executor), state_(std::make_shared<State>(executor)) {}

    // Starts `task` on the loop. A task that lets an exception escape ends the process.
    void spawn(Task<> task) {
        ++state_->running;
        asio::co_spawn(executor_, run(state_, std::move(task)), asio::detached);
    }

    Task<> join();

    std::size_t running_count() const { return state_->running; }

private:
    struct State {
        explicit State(asio::any_io_executor executor) : done(std::move(executor)) {}
        std::size_t running = 0;
        Event done;
    };
    static Task<> run(std::shared_ptr<State> state, Task<> task);

    asio::any_io_executor executor_;
    std::shared_ptr<State> state_;
};

}  // namespace walvault
