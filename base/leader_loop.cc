#include "base/leader_loop.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>
#include <utility>

#include "base/invariant.h"

namespace walvault {

LeaderLoop::Blocking::Blocking(LeaderLoop* loop) : loop_(loop) {
    if (loop_ == nullptr) return;
    const std::lock_guard lock(loop_->mutex_);
    ++loop_->job_count_;
    // A second one, beside one that was overtaken, is not watched: there is no third thread.
    if (loop_->blocked_since_) {
        loop_ = nullptr;
        return;
    }
    loop_->blocked_since_ = std::chrono::steady_clock::now();
    me_ = loop_->leader_;
    if (loop_->watching_) return;
    loop_->watching_ = true;
    loop_->changed_.notify_all();
}

bool LeaderLoop::Blocking::end() {
    if (loop_ == nullptr) return false;
    const std::lock_guard lock(loop_->mutex_);
    loop_->blocked_since_.reset();
    return std::exchange(loop_, nullptr)->leader_ == me_;
}

void LeaderLoop::run() {
    WV_ASSERT(!ended_);
    std::thread follower([this] { serve(1); });
    serve(0);
    follower.join();
}

namespace {

// The kernel's, which this C library does not have.
struct SchedulingAttributes {
    std::uint32_t size = sizeof(SchedulingAttributes);
    std::uint32_t policy = SCHED_OTHER;
    std::uint64_t flags = 0x01;  // threads that this one makes are as others
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime_ns = 0;
    std::uint64_t deadline_ns = 0;
    std::uint64_t period_ns = 0;
};

// Since Linux 6.12 a thread that asks for short slices is not kept waiting by one that is in the
// middle of a long one, such as those that compress. Older ones do not know of it. Whoever runs the
// agent under another policy has chosen that.
void ask_for_short_slices() {
    if (::sched_getscheduler(0) != SCHED_OTHER) return;
    constexpr std::uint64_t kSliceNs = 100'000;
    SchedulingAttributes asked;
    asked.nice = ::getpriority(PRIO_PROCESS, 0);
    asked.runtime_ns = kSliceNs;
    ::syscall(SYS_sched_setattr, 0, &asked, 0);
}

}  // namespace

void LeaderLoop::serve(int me) {
    ask_for_short_slices();
    while (wait_to_lead(me)) {
        while (leader_ == me) {
            if (context_.run_one() > 0) continue;
            const std::lock_guard lock(mutex_);
            ended_ = true;
            changed_.notify_all();
            return;
        }
    }
}

// False when the loop has ended.
bool LeaderLoop::wait_to_lead(int me) {
    std::unique_lock lock(mutex_);
    while (!ended_ && leader_ != me) {
        if (!watching_) {
            changed_.wait(lock);
            continue;
        }
        const std::uint64_t jobs = job_count_;
        changed_.wait_for(lock, patience_);
        if (ended_ || leader_ == me) break;
        if (blocked_since_ && std::chrono::steady_clock::now() - *blocked_since_ >= patience_) {
            leader_ = me;
            break;
        }
        watching_ = blocked_since_ || job_count_ != jobs;
    }
    return !ended_;
}

}  // namespace walvault
