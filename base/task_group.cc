#include "base/task_group.h"

#include <exception>

namespace walvault {

Task<> TaskGroup::join() {
    auto state = state_;
    while (state->running > 0)
        co_await state->done.wait();
}

Task<> TaskGroup::run(std::shared_ptr<State> state, Task<> task) {
    try {
        co_await std::move(task);
    } catch (...) {
        std::terminate();
    }
    --state->running;
    state->done.notify();
}

}  // namespace walvault
