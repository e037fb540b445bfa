#include "tests/simulation/receiver.h"

#include <algorithm>

namespace walvault::simulation {
namespace {

using namespace std::chrono_literals;

tl::unexpected<Error> said(Errc code, std::string message) {
    return fail(Error{code, std::move(message), "", Origin::server});
}

class SimulatedReceiver final : public wal::Receiver {
public:
    SimulatedReceiver(Network& network, asio::any_io_executor executor, Options options)
        : network_(network),
          options_(std::move(options)),
          session_(std::make_shared<Session>(std::move(executor))) {}
    ~SimulatedReceiver() override { session_->is_broken = true; }

    Task<Result<>> connect();
    const wal::ServerIdentity& identity() const override { return identity_; }
    Task<Result<wal::SlotPosition>> ensure_slot() override;
    Task<Result<>> drop_slot() override;
    Task<Result<std::string>> timeline_history(TimelineId timeline) override;
    Task<Result<>> start(Lsn start, TimelineId timeline) override;
    Task<Result<wal::StreamEvent>> next() override;
    Result<std::optional<wal::StreamEvent>> poll() override { return std::nullopt; }
    Task<Result<>> acknowledge(Lsn flushed_lsn, bool urgent) override;
    bool acknowledge_at_once(Lsn flushed_lsn) override;
    void set_gather_interval(std::chrono::milliseconds interval) override {
        options_.gather_interval = interval;
    }
    Task<> stop() override;
    void close() override {
        closed_ = true;
        session_->is_broken = true;
        session_->changed.notify();
    }

private:
    Server& server() { return *session_->server; }
    Task<Result<>> round_trip();
    Result<> require_connection();
    Result<> send_what_is_due();
    void send_status(bool reply_requested);
    std::optional<Result<wal::StreamEvent>> arrived();
    Result<wal::StreamEvent> take_slice(Lsn end);
    Result<> check_start(Lsn start, TimelineId timeline);
    Lsn available() const;

    Network& network_;
    Options options_;
    std::shared_ptr<Session> session_;
    wal::ServerIdentity identity_;
    std::optional<wal::StreamState> state_;
    std::optional<wal::TimelineEnd> ended_before_;
    ByteBuffer slice_;
    bool closed_ = false;
};

Result<> SimulatedReceiver::require_connection() {
    if (options_.hangup.hung_up() || closed_) return fail(Errc::cancelled, "stopped on request");
    if (!session_->is_broken && network_.breaks()) session_->is_broken = true;
    if (session_->is_broken) return said(Errc::unavailable, "the connection was lost");
    return {};
}

Task<Result<>> SimulatedReceiver::round_trip() {
    const auto way = std::chrono::microseconds(network_.random.between(10, 2000));
    co_await wait_for(session_->changed, way);
    co_return require_connection();
}

Task<Result<>> SimulatedReceiver::connect() {
    Server* target = network_.target();
    if (target == nullptr || !target->is_up)
        co_return said(Errc::unavailable, "nobody answers there");
    session_->server = target;
    target->join(session_);
    WV_CO_CHECK(co_await round_trip());
    identity_.system = {WalBuilder::kSystem, target->branch->timeline, target->flushed_lsn};
    identity_.segment_bytes = WalBuilder::kSegmentBytes;
    identity_.server_version_num = network_.server_version_num;
    identity_.in_recovery = target->in_recovery;
    if (target->slot)
        identity_.slot = wal::SlotPosition{target->slot->restart_lsn, target->branch->timeline};
    co_return Result<>();
}

Task<Result<wal::SlotPosition>> SimulatedReceiver::ensure_slot() {
    WV_CO_CHECK(co_await round_trip());
    if (!server().slot) {
        const Lsn reserved = std::max(server().redo_lsn, server().kept_from_lsn);
        server().slot.emplace();
        server().slot->restart_lsn = server().slot->saved_lsn = reserved;
    }
    co_return wal::SlotPosition{server().slot->restart_lsn, server().branch->timeline};
}

Task<Result<>> SimulatedReceiver::drop_slot() {
    WV_CO_CHECK(co_await round_trip());
    server().slot.reset();
    co_return Result<>();
}

Task<Result<std::string>> SimulatedReceiver::timeline_history(TimelineId timeline) {
    WV_CO_CHECK(co_await round_trip());
    const Branch& branch = *server().branch;
    if (timeline == branch.timeline) co_return branch.history_file;
    // Those of its ancestors have the first lines of its own.
    std::size_t end = 0;
    for (const TimelineSwitch& ended : branch.switches) {
        if (ended.timeline == timeline) co_return branch.history_file.substr(0, end);
        end = branch.history_file.find('\n', end) + 1;
    }
    co_return said(Errc::not_found, "no history file of timeline " + std::to_string(timeline));
}

Result<> SimulatedReceiver::check_start(Lsn start, TimelineId timeline) {
    Server& from = server();
    if (!from.slot) return said(Errc::not_found, "the replication slot does not exist");
    for (const auto& each : from.sessions)
        if (auto other = each.lock();
            other && other != session_ && other->is_streaming && !other->is_broken)
            return said(Errc::busy, "the replication slot is active for another process");
    if (from.slot->is_lost && from.refuses_lost_slots)
        return said(Errc::unusable, "can no longer access the replication slot");
    session_->ends.reset();
    if (timeline == from.branch->timeline) {
        if (start > from.flushed_lsn)
            return said(Errc::unavailable, "the start is ahead of the WAL flush position");
    } else {
        const auto& switches = from.branch->switches;
        auto found = std::ranges::find(switches, timeline, &TimelineSwitch::timeline);
        if (found == switches.end() || start > found->end_lsn)
            return said(Errc::forked, "the start is not in this server's history");
        const auto next = found + 1;
        session_->ends = wal::TimelineEnd{
            next == switches.end() ? from.branch->timeline : next->timeline, found->end_lsn};
        if (start == found->end_lsn) ended_before_ = session_->ends;
    }
    if (from.slot->is_lost) {
        from.slot->is_lost = false;
        from.slot->restart_lsn = start;
    }
    return {};
}

Task<Result<>> SimulatedReceiver::start(Lsn start, TimelineId timeline) {
    state_.reset();
    ended_before_.reset();
    WV_CO_CHECK(co_await round_trip());
    WV_CO_CHECK(check_start(start, timeline));
    if (ended_before_) co_return Result<>();
    session_->branch = server().branch;
    session_->timeline = timeline;
    session_->from_lsn = session_->sent_lsn = start;
    session_->is_streaming = true;
    wal::StreamState::Options rules;
    rules.ask_interval = options_.ask_interval;
    rules.status_interval = options_.status_interval;
    rules.wal_sender_timeout = identity_.wal_sender_timeout;
    state_.emplace(rules, start, network_.time.steady_now());
    co_return Result<>();
}

Lsn SimulatedReceiver::available() const {
    if (session_->ends) return session_->ends->next_start_lsn;
    return session_->server->flushed_lsn;
}

Result<wal::StreamEvent> SimulatedReceiver::take_slice(Lsn end) {
    const Lsn at = session_->sent_lsn;
    if (at < server().oldest_lsn(session_->timeline)) {
        session_->is_broken = true;
        return said(Errc::gap, "requested WAL segment has already been removed");
    }
    std::uint64_t count = std::min<std::uint64_t>(end - at, 128 << 10);
    if (network_.random.one_in(4)) count = network_.random.between(1, count);
    const ByteSpan wal = session_->branch->bytes(at, at + count);
    slice_.assign(wal.begin(), wal.end());
    session_->sent_lsn = at + count;
    const WallTime now = network_.time.now();
    XLogData data{.start_lsn = at, .server_end_lsn = end, .sent_at = now, .wal = slice_};
    WV_CHECK(state_->on_wal(data, network_.time.steady_now()));
    if (state_->status_due(network_.time.steady_now())) send_status(false);
    wal::WalSlice slice;
    slice.start_lsn = at;
    slice.wal = slice_;
    slice.server_end_lsn = end;
    slice.sent_at = now;
    return slice;
}

std::optional<Result<wal::StreamEvent>> SimulatedReceiver::arrived() {
    if (!session_->keepalives.empty()) {
        const wal::ServerPosition position = session_->keepalives.front();
        session_->keepalives.erase(session_->keepalives.begin());
        const Keepalive keepalive{position.server_end_lsn, position.sent_at,
                                  network_.random.one_in(8)};
        state_->on_keepalive(keepalive, network_.time.steady_now());
        if (state_->status_due(network_.time.steady_now())) send_status(false);
        return position;
    }
    const Lsn end = available();
    if (session_->sent_lsn < end) return take_slice(end);
    if (!session_->ends && !session_->ends_cleanly) return std::nullopt;
    state_.reset();
    session_->is_streaming = false;
    wal::StreamEnded ended;
    ended.next = session_->ends;
    return ended;
}

Task<Result<wal::StreamEvent>> SimulatedReceiver::next() {
    if (ended_before_) {
        wal::StreamEnded ended;
        ended.next = std::exchange(ended_before_, std::nullopt);
        co_return ended;
    }
    for (;;) {
        WV_CO_CHECK(require_connection());
        if (!state_)
            co_return fail(Errc::invalid_argument, "no stream was started, or it has ended");
        if (auto event = arrived()) co_return std::move(*event);
        WV_CO_CHECK(send_what_is_due());
        if (!session_->keepalives.empty()) {
            const auto way = std::chrono::microseconds(network_.random.between(10, 2000));
            co_await wait_for(session_->changed, way);
            continue;
        }
        co_await wait_for(session_->changed, state_->next_due_at() - network_.time.steady_now());
    }
}

Result<> SimulatedReceiver::send_what_is_due() {
    const SteadyTime now = network_.time.steady_now();
    if (state_->dead(now)) return said(Errc::unavailable, "the server was asked and sent nothing");
    if (state_->ask_due(now))
        send_status(true);
    else if (state_->status_due(now))
        send_status(false);
    return {};
}

void SimulatedReceiver::send_status(bool reply_requested) {
    const StandbyStatus status =
        state_->take_status(reply_requested, network_.time.steady_now(), network_.time.now());
    if (session_->is_broken) return;
    if (status.flushed_lsn) network_.on_status(*session_, status.flushed_lsn);
    if (!reply_requested) return;
    session_->keepalives.push_back({session_->sent_lsn, network_.time.now()});
    if (network_.keepalives_are_doubled && network_.random.one_in(3))
        session_->keepalives.push_back(session_->keepalives.back());
}

// Sometimes the socket takes nothing at once.
bool SimulatedReceiver::acknowledge_at_once(Lsn flushed_lsn) {
    if (!state_) return true;
    if (network_.random.one_in(4)) return false;
    state_->acknowledge(flushed_lsn, true);
    if (state_->status_due(network_.time.steady_now())) send_status(false);
    return true;
}

Task<Result<>> SimulatedReceiver::acknowledge(Lsn flushed_lsn, bool urgent) {
    if (!state_) co_return Result<>();
    state_->acknowledge(flushed_lsn, urgent);
    if (state_->status_due(network_.time.steady_now())) send_status(false);
    co_return Result<>();
}

Task<> SimulatedReceiver::stop() {
    if (state_ && !session_->is_broken) send_status(false);
    state_.reset();
    close();
    co_return;
}

}  // namespace

Task<Result<std::unique_ptr<wal::Receiver>>> attach_simulated(Network& network,
                                                              asio::any_io_executor executor,
                                                              wal::Receiver::Options options) {
    auto receiver =
        std::make_unique<SimulatedReceiver>(network, std::move(executor), std::move(options));
    WV_CO_CHECK(co_await receiver->connect());
    co_return std::move(receiver);
}

}  // namespace walvault::simulation
