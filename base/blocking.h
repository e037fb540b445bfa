// run_on: blocking or heavy work on a pool, its result back on the loop.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/asio.h"
#include "base/leader_loop.h"

namespace walvault {

// Threads that may block; or the loop's own, where a job is short and waited for; or an executor in
// their place, where one thread is to do everything in an order of its own.
class Pool {
public:
    explicit Pool(std::size_t threads)
        : threads_(std::make_unique<asio::thread_pool>(threads)),
          executor_(threads_->get_executor()) {}
    explicit Pool(LeaderLoop& loop) : loop_(&loop), executor_(loop.context().get_executor()) {}
    explicit Pool(asio::any_io_executor executor) : executor_(std::move(executor)) {}

    const asio::any_io_executor& executor() const { return executor_; }
    LeaderLoop* loop() const { return loop_; }

private:
    std::unique_ptr<asio::thread_pool> threads_;
    LeaderLoop* loop_ = nullptr;
    asio::any_io_executor executor_;
};

// Runs `work()` on a thread of `pool` and resumes the caller on its own executor with what it
// returned. `work` takes values and returns values: it touches no object that the loop also touches
// while it runs. Name the lambda before the co_await (g++ 12 destroys a temporary closure twice).
template <class Work>
Task<std::invoke_result_t<Work&>> run_on(Pool& pool, Work work) {
    using Value = std::invoke_result_t<Work&>;
    auto initiate = [&pool](auto handler, Work job) {
        auto executor = asio::get_associated_executor(handler);
        auto shared_handler = std::make_shared<decltype(handler)>(std::move(handler));
        auto shared_job = std::make_shared<Work>(std::move(job));
        auto run = [executor, shared_handler, shared_job, loop = pool.loop()]() mutable {
            LeaderLoop::Blocking blocking(loop);
            auto value = std::make_shared<std::optional<Value>>((*shared_job)());
            shared_job.reset();
            if (blocking.end()) return (*shared_handler)(std::move(**value));
            asio::post(executor, [shared_handler, value]() mutable {
                (*shared_handler)(std::move(**value));
            });
        };
        asio::post(pool.executor(), std::move(run));
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(Value)>(
        initiate, asio::use_awaitable, std::move(work));
}

// The same for a job that takes a moment and is waited for: where `pool` is the loop's own thread,
// without a way through its queue. The caller was resumed by a handler of the loop, and nothing
// that called it in that handler is still to be done.
template <class Work>
Task<std::invoke_result_t<Work&>> run_here_or_on(Pool& pool, Work work) {
    if (pool.loop() == nullptr) {
        auto value = co_await run_on(pool, std::move(work));
        co_return value;
    }
    LeaderLoop::Blocking blocking(pool.loop());
    auto value = work();
    // Overtaken: the loop goes on in another thread, and so does the caller.
    if (!blocking.end()) co_await asio::post(pool.executor(), asio::use_awaitable);
    co_return value;
}

}  // namespace walvault
