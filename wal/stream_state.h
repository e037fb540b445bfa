// StreamState: the rules of one replication stream as values; `now` in, what is due out; no I/O.
#pragma once

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "proto/replication_message.h"

namespace walvault::wal {

class StreamState {
public:
    struct Options {
        std::chrono::milliseconds ask_interval{1000};
        std::chrono::milliseconds status_interval{1000};
        std::chrono::milliseconds wal_sender_timeout{60000};  // zero: the server has none
    };
    StreamState(const Options& options, Lsn start, SteadyTime now);

    // Errors: corrupt unless the bytes continue exactly at received_lsn().
    Result<> on_wal(const XLogData& data, SteadyTime now);
    void on_keepalive(const Keepalive& keepalive, SteadyTime now);
    // Of a stream of decoded changes, whose positions may repeat, jump and be 0: the server has named
    // `lsn`, and what is at or before it may be acknowledged.
    void on_decoded(Lsn lsn, SteadyTime now);
    // `flushed_lsn` may be ahead of what this connection received: bytes streamed again. What is
    // acknowledged is then the lesser of both. A lower one than before changes nothing.
    void acknowledge(Lsn flushed_lsn, bool urgent);

    bool status_due(SteadyTime now) const { return now >= status_due_at(); }
    // The server is to be asked for its position.
    bool ask_due(SteadyTime now) const { return now >= ask_due_at(); }
    // Asked, and silent for twice its own time-out. Counted from the question and not from the last
    // message, so that a process that was stopped for a while does not take its own pause for silence.
    bool dead(SteadyTime now) const { return now >= dead_at(); }
    // When to look again: the first of the three.
    SteadyTime next_due_at() const;

    // The update to send now, which counts as sent.
    StandbyStatus take_status(bool reply_requested, SteadyTime now, WallTime wall_now);

    Lsn received_lsn() const { return received_; }
    Lsn acknowledged_lsn() const { return std::min(flushed_, received_); }
    Lsn server_end_lsn() const { return server_end_; }

private:
    SteadyTime status_due_at() const;
    SteadyTime ask_due_at() const { return std::max(last_arrival_, last_ask_) + options_.ask_interval; }
    SteadyTime dead_at() const;
    void arrived(Lsn server_end, SteadyTime now);

    Options options_;
    Lsn received_;
    Lsn flushed_;  // as the owner says; zero until it says so
    Lsn reported_;
    Lsn server_end_;
    bool reply_now_ = false;
    SteadyTime last_arrival_;
    SteadyTime last_status_;
    SteadyTime last_ask_;
    SteadyTime unanswered_since_ = SteadyTime::max();
};

}  // namespace walvault::wal
