// Progress: how far WAL has come, one position for each step, in one place that asserts their
// order.
#pragma once

#include <algorithm>
#include <optional>

#include "agent/upstream_times.h"
#include "base/event.h"
#include "proto/lsn.h"
#include "storage/repository_view.h"

namespace walvault::agent {

// acknowledged <= flushed <= written <= received, closed <= flushed, and offloaded <= flushed. Each
// is the first byte not yet done. On the loop thread.
class Progress {
public:
    explicit Progress(asio::any_io_executor executor) : changed_(std::move(executor)) {}

    // Begins again at what is stored, after start or reconnection: [start of history, `stored`).
    void reset(const storage::HistoryRecord& history, Lsn stored);
    // The server's WAL reaches to `lsn`, known at `at`.
    void set_upstream(Lsn lsn, SteadyTime at);
    void set_received(Lsn lsn);
    void set_written(Lsn lsn);
    void set_flushed(Lsn lsn);
    void set_acknowledged(Lsn lsn);
    // A copy of the repository has the history's WAL up to here; one is enough. Never moves back.
    void set_offloaded(const Id16& history, Lsn lsn);
    // Whether what is acknowledged has to be on a copy, too.
    void wait_for_copy(bool waits) { waits_for_copy_ = waits; }
    void set_closed(Lsn lsn);
    // Everything committed up to this moment is flushed.
    void set_recoverable_until(WallTime at);

    const std::optional<storage::HistoryRecord>& history() const { return history_; }
    Lsn upstream_lsn() const { return upstream_; }
    Lsn received_lsn() const { return received_; }
    Lsn written_lsn() const { return written_; }
    Lsn flushed_lsn() const { return flushed_; }
    Lsn acknowledged_lsn() const { return acknowledged_; }
    Lsn offloaded_lsn() const { return offloaded_; }
    // What may be told to the server as flushed; nothing else says so.
    Lsn acknowledgeable_lsn() const {
        return std::max(acknowledged_, waits_for_copy_ ? std::min(flushed_, offloaded_) : flushed_);
    }
    Lsn closed_lsn() const { return closed_; }
    // How long the first byte from `position` on has been known of.
    SteadyTime::duration behind(Lsn position, SteadyTime now) const {
        return upstream_times_.behind(position, now);
    }
    WallTime recoverable_until() const { return recoverable_until_; }

    // Wakes whoever waits for a position; re-check after.
    Event& changed() { return changed_; }

private:
    void check_order() const;
    std::optional<storage::HistoryRecord> history_;
    Lsn upstream_, received_, written_, flushed_, acknowledged_, closed_, offloaded_;
    bool waits_for_copy_ = false;
    UpstreamTimes upstream_times_;
    WallTime recoverable_until_{};
    Event changed_;
};

}  // namespace walvault::agent
