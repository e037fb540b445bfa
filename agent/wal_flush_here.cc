// WalPipeline's flush in the handler that is running: a write and a sync of some 100 us, with a
// commit waiting for them, are worth no way through queues and coroutines, which took as much CPU
// again.
#include "agent/wal_pipeline_parts.h"

namespace walvault::agent {

bool WalPipeline::may_flush_here() const {
    const bool writer_is_idle = !writing_ && queue_.empty();
    const bool is_small = !open_.empty() && open_.size() <= kSmallFrameBytes;
    // Now and then the writer is to note what is synced.
    const bool witness_is_fresh = clock_.steady_now() - last_witness_at_ < kWitnessEvery;
    return !error_ && writer_is_idle && is_small && witness_is_fresh &&
           (pools_.waited_for.loop() != nullptr || pools_.flushes_here);
}

bool WalPipeline::flush_here() {
    if (!flush_at_once_) return true;
    if (!may_flush_here()) {
        work_.notify();
        return true;
    }
    auto frame = take_open_frame();
    if (!frame) return true;
    batch_here_.assign(1, frame);
    if (!frame->tail->writer || has_barrier(batch_here_)) {
        batch_here_.clear();
        enqueue(std::move(frame));
        return true;
    }
    writing_ = true;
    writing_since_ = frame->cut_at;
    const int level = options_.level;
    LeaderLoop::Blocking blocking(pools_.waited_for.loop());
    done_here_ = write_and_sync(batch_here_, level);
    if (!blocking.end()) return false;
    note_flush_here();
    return true;
}

Task<> WalPipeline::end_flush_here() {
    co_await asio::post(executor_, asio::use_awaitable);
    note_flush_here();
}

void WalPipeline::note_flush_here() {
    const auto tail = batch_here_.front()->tail;
    writing_ = false;
    if (done_here_) {
        progress_.set_written(Lsn{batch_here_.back()->place.end});
        note_flushed(batch_here_);
        close_if_whole(tail);
    } else {
        break_with(done_here_.error());
    }
    note_sync(done_here_, writing_since_);
    batch_here_.clear();
    // What was enqueued meanwhile.
    if (!queue_.empty()) work_.notify();
}

}  // namespace walvault::agent
