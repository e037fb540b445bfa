#include "wal/stream_state.h"

#include <fmt/format.h>

#include <algorithm>

namespace walvault::wal {
namespace {

// A server without a time-out, and a message every second asked for: that long a silence is death.
constexpr std::chrono::milliseconds kTimeoutWhereNone{60000};

}  // namespace

StreamState::StreamState(const Options& options, Lsn start, SteadyTime now)
    : options_(options), received_(start), last_arrival_(now), last_status_(now), last_ask_(now) {
    if (options_.wal_sender_timeout.count() <= 0) options_.wal_sender_timeout = kTimeoutWhereNone;
}

void StreamState::arrived(Lsn server_end, SteadyTime now) {
    last_arrival_ = now;
    unanswered_since_ = SteadyTime::max();
    server_end_ = std::max(server_end_, server_end);
}

Result<> StreamState::on_wal(const XLogData& data, SteadyTime now) {
    if (data.start_lsn != received_)
        return fail(Errc::corrupt, fmt::format("the server sent WAL from {} where {} had to follow",
                                               to_string(data.start_lsn), to_string(received_)));
    if (data.wal.size() > ~std::uint64_t{0} - received_.value)
        return fail(Errc::corrupt, fmt::format("the server sent {} bytes of WAL at {}, past the last LSN",
                                               data.wal.size(), to_string(received_)));
    received_ = received_ + data.wal.size();
    arrived(data.server_end_lsn, now);
    return {};
}

void StreamState::on_keepalive(const Keepalive& keepalive, SteadyTime now) {
    arrived(keepalive.server_end_lsn, now);
    reply_now_ = reply_now_ || keepalive.reply_requested;
}

void StreamState::on_decoded(Lsn lsn, SteadyTime now) {
    received_ = std::max(received_, lsn);
    arrived(lsn, now);
}

void StreamState::acknowledge(Lsn flushed_lsn, bool urgent) {
    if (flushed_lsn <= flushed_) return;
    flushed_ = flushed_lsn;
    if (urgent && acknowledged_lsn() > reported_) reply_now_ = true;
}

SteadyTime StreamState::status_due_at() const {
    if (reply_now_) return SteadyTime::min();
    // A third of the server's time-out: one lost or late update does not end the connection.
    auto at_most = options_.wal_sender_timeout / 3;
    bool moved = acknowledged_lsn() > reported_;
    return last_status_ + (moved ? std::min(options_.status_interval, at_most) : at_most);
}

SteadyTime StreamState::dead_at() const {
    if (unanswered_since_ == SteadyTime::max()) return SteadyTime::max();
    return unanswered_since_ + 2 * options_.wal_sender_timeout;
}

SteadyTime StreamState::next_due_at() const {
    return std::min({status_due_at(), ask_due_at(), dead_at()});
}

StandbyStatus StreamState::take_status(bool reply_requested, SteadyTime now, WallTime wall_now) {
    Lsn acknowledged = acknowledged_lsn();
    WV_ASSERT(acknowledged >= reported_);
    WV_ASSERT(acknowledged <= received_);
    reported_ = acknowledged;
    reply_now_ = false;
    last_status_ = now;
    if (reply_requested) {
        last_ask_ = now;
        if (unanswered_since_ == SteadyTime::max()) unanswered_since_ = now;
    }
    StandbyStatus status;
    status.written_lsn = acknowledged;
    status.flushed_lsn = acknowledged;
    status.sent_at = wall_now;
    status.reply_requested = reply_requested;
    return status;
}

}  // namespace walvault::wal
