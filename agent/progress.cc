#include "agent/progress.h"

#include <algorithm>

#include "base/invariant.h"

namespace walvault::agent {

void Progress::check_order() const {
    WV_ASSERT(acknowledged_ <= flushed_ && flushed_ <= written_ && written_ <= received_);
    WV_ASSERT(closed_ <= flushed_ && offloaded_ <= flushed_);
}

void Progress::reset(const storage::HistoryRecord& history, Lsn stored) {
    // Another server may have less.
    if (!history_ || history_->id != history.id) {
        upstream_ = stored;
        offloaded_ = {};
        // Nothing of this one was acknowledged yet.
        acknowledged_ = history.start_lsn;
    }
    history_ = history;
    received_ = written_ = flushed_ = closed_ = stored;
    acknowledged_ = std::min(acknowledged_, stored);
    offloaded_ = std::min(offloaded_, stored);
    recoverable_until_ = std::max(recoverable_until_, history.covered_until);
    check_order();
    changed_.notify();
}

void Progress::set_upstream(Lsn lsn, SteadyTime at) {
    upstream_ = std::max(upstream_, lsn);
    upstream_times_.note(upstream_, at);
}

void Progress::set_received(Lsn lsn) {
    WV_ASSERT(lsn >= received_);
    received_ = lsn;
}

void Progress::set_written(Lsn lsn) {
    WV_ASSERT(lsn >= written_);
    written_ = lsn;
    check_order();
}

void Progress::set_flushed(Lsn lsn) {
    WV_ASSERT(lsn >= flushed_);
    flushed_ = lsn;
    check_order();
    changed_.notify();
}

void Progress::set_acknowledged(Lsn lsn) {
    acknowledged_ = lsn;
    check_order();
}

void Progress::set_offloaded(const Id16& history, Lsn lsn) {
    if (!history_ || history_->id != history) return;
    offloaded_ = std::max(offloaded_, std::min(lsn, flushed_));
    check_order();
}

void Progress::set_closed(Lsn lsn) {
    closed_ = std::max(closed_, lsn);
    check_order();
}

void Progress::set_recoverable_until(WallTime at) {
    recoverable_until_ = std::max(recoverable_until_, at);
    changed_.notify();
}

}  // namespace walvault::agent
