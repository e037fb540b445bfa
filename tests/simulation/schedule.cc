#include "tests/simulation/schedule.h"

#include <algorithm>

namespace walvault::simulation {

void VirtualTime::notify_after(Duration delay, std::weak_ptr<Event> event) {
    call_after(delay, [event] {
        if (auto waited = event.lock()) waited->notify();
    });
}

void VirtualTime::call_after(Duration delay, std::function<void()> call) {
    calls_.emplace(std::pair(steady_ + std::max(delay, Duration::zero()), count_++),
                   std::move(call));
}

std::optional<SteadyTime> VirtualTime::next_at() const {
    if (calls_.empty()) return std::nullopt;
    return calls_.begin()->first.first;
}

void VirtualTime::run_due() {
    while (!calls_.empty() && calls_.begin()->first.first <= steady_) {
        auto call = std::move(calls_.begin()->second);
        calls_.erase(calls_.begin());
        call();
    }
}

// What asio asks of an executor whose jobs never run inside of execute().
class JobQueue::Executor {
public:
    explicit Executor(JobQueue& queue) : queue_(&queue) {}
    asio::execution_context& query(asio::execution::context_t) const noexcept {
        return queue_->context_;
    }
    static constexpr asio::execution::blocking_t::never_t query(
        asio::execution::blocking_t) noexcept {
        return asio::execution::blocking_t::never;
    }
    template <class Work>
    void execute(Work work) const {
        auto shared = std::make_shared<Work>(std::move(work));
        queue_->push([shared] { (*shared)(); });
    }
    bool operator==(const Executor&) const noexcept = default;

private:
    JobQueue* queue_;
};

asio::any_io_executor JobQueue::executor() { return Executor(*this); }

void JobQueue::push(std::function<void()> work) {
    SteadyTime ready = time_.steady_now();
    if (slowest_ > Duration::zero() && random_.one_in(3))
        ready += Duration(static_cast<Duration::rep>(
            random_.below(static_cast<std::uint64_t>(slowest_.count()))));
    jobs_.push_back({std::move(work), ready});
}

std::vector<std::size_t> JobQueue::runnable() const {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < std::min(threads_, jobs_.size()); ++i)
        if (jobs_[i].ready_at <= time_.steady_now()) found.push_back(i);
    return found;
}

bool JobQueue::is_ready() const { return !runnable().empty(); }

std::optional<SteadyTime> JobQueue::ready_at() const {
    std::optional<SteadyTime> first;
    for (std::size_t i = 0; i < std::min(threads_, jobs_.size()); ++i)
        if (!first || jobs_[i].ready_at < *first) first = jobs_[i].ready_at;
    return first;
}

void JobQueue::run_one() {
    const std::vector<std::size_t> choices = runnable();
    const std::size_t chosen = choices[choices.size() == 1 ? 0 : random_.below(choices.size())];
    auto work = std::move(jobs_[chosen].work);
    jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(chosen));
    work();
}

void JobQueue::clear() {
    // What is destroyed here may post again.
    while (!jobs_.empty()) {
        auto jobs = std::move(jobs_);
        jobs_.clear();
    }
}

}  // namespace walvault::simulation
