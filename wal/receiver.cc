#include "wal/receiver.h"

#include <fmt/format.h>

#include <utility>

#include "base/event.h"
#include "proto/replication_message.h"
#include "wal/pq_error.h"
#include "wal/stream_state.h"
#include "wal/walsender_text.h"

namespace walvault::wal {
namespace {

constexpr std::chrono::seconds kStopTimeout{1};
// As much at once means that there is a backlog, which is read as fast as it comes.
constexpr std::uint64_t kBacklogBytes = 64_KiB;

// A walsender of 14 cannot read a slot and takes no SQL: a second connection does.
Task<Result<std::optional<SlotPosition>>> find_slot(Connection& connection,
                                                    Receiver::Options options) {
    WV_CO_TRY(const ServerVersion* version, server_version_of(connection));
    if (version->has_read_slot_command) co_return co_await read_slot(connection, options.slot);
    Connection::Options wanted;
    wanted.conninfo = options.conninfo;
    wanted.only = connection.address();
    wanted.application_name = options.application_name;
    wanted.hangup = options.hangup;
    WV_CO_TRY(auto sql, co_await Connection::connect(std::move(wanted)));
    co_return co_await read_slot_in_view(*sql, options.slot);
}

class PhysicalReceiver final : public Receiver {
public:
    PhysicalReceiver(Options options, const Clock& clock, std::unique_ptr<Connection> connection,
                     ServerIdentity identity)
        : options_(std::move(options)),
          clock_(clock),
          connection_(std::move(connection)),
          identity_(std::move(identity)) {}

    const ServerIdentity& identity() const override { return identity_; }
    Task<Result<SlotPosition>> ensure_slot() override;
    Task<Result<>> drop_slot() override;
    Task<Result<std::string>> timeline_history(TimelineId timeline) override {
        return wal::timeline_history(*connection_, timeline);
    }
    Task<Result<>> start(Lsn start, TimelineId timeline) override;
    Task<Result<StreamEvent>> next() override;
    Result<std::optional<StreamEvent>> poll() override;
    Task<Result<>> acknowledge(Lsn flushed_lsn, bool urgent) override;
    bool acknowledge_at_once(Lsn flushed_lsn) override;
    Task<> stop() override;
    void set_gather_interval(std::chrono::milliseconds interval) override {
        options_.gather_interval = interval;
    }
    void close() override { connection_->close(); }

private:
    Task<Result<>> refuse_rewound_server(Lsn start);
    Result<StreamEvent> take(CopyMessage message);
    Task<Result<>> send_what_is_due();
    Task<Result<>> send_status(bool reply_requested);
    void send_status_at_once(SteadyTime now);
    Task<Result<StreamEvent>> end_of_stream();

    Options options_;
    const Clock& clock_;
    std::unique_ptr<Connection> connection_;
    ServerIdentity identity_;
    std::optional<StreamState> state_;         // while streaming
    std::optional<TimelineEnd> ended_before_;  // the timeline ended exactly at the start
    bool unsent_ = false;                      // a status waits for room in the socket
    std::uint64_t gathered_bytes_ = 0;         // of WAL since the socket was last waited for
};

Task<Result<SlotPosition>> PhysicalReceiver::ensure_slot() {
    WV_CO_TRY(auto found, co_await find_slot(*connection_, options_));
    if (!found) {
        auto created = co_await create_physical_slot(*connection_, options_.slot);
        // Somebody else may have made it in between; then it is there, which is what is wanted.
        if (!created && created.error().code != Errc::refused) co_return fail(created.error());
        WV_CO_TRY(found, co_await find_slot(*connection_, options_));
        if (!found)
            co_return server_failed(
                Errc::unavailable,
                fmt::format("the slot \"{}\" was dropped as soon as it was made", options_.slot));
    }
    co_return *found;
}

Task<Result<>> PhysicalReceiver::drop_slot() {
    WV_CO_TRY(auto found, co_await find_slot(*connection_, options_));
    if (found) WV_CO_CHECK(co_await wal::drop_slot(*connection_, options_.slot));
    co_return Result<>();
}

Task<Result<>> PhysicalReceiver::refuse_rewound_server(Lsn start) {
    if (start <= identity_.system.flushed_lsn) co_return Result<>();
    // It may have written more since it was asked.
    WV_CO_TRY(identity_.system, co_await identify_system(*connection_));
    if (start <= identity_.system.flushed_lsn) co_return Result<>();
    co_return fail(
        Errc::unavailable,
        fmt::format("the server has flushed WAL up to {}, behind {} where the stream begins",
                    to_string(identity_.system.flushed_lsn), to_string(start)));
}

Task<Result<>> PhysicalReceiver::start(Lsn start, TimelineId timeline) {
    state_.reset();
    ended_before_.reset();
    unsent_ = false;
    // The new primary after a failover may be behind: its history tells, by timeline and position.
    if (timeline == identity_.system.timeline) WV_CO_CHECK(co_await refuse_rewound_server(start));
    WV_CO_TRY(ended_before_,
              co_await start_replication(*connection_, options_.slot, start, timeline));
    StreamState::Options rules;
    rules.ask_interval = options_.ask_interval;
    rules.status_interval = options_.status_interval;
    rules.wal_sender_timeout = identity_.wal_sender_timeout;
    if (!ended_before_) state_.emplace(rules, start, clock_.steady_now());
    co_return Result<>();
}

Task<Result<StreamEvent>> PhysicalReceiver::next() {
    if (ended_before_) {
        StreamEnded ended;
        ended.next = std::exchange(ended_before_, std::nullopt);
        co_return ended;
    }
    for (;;) {
        if (!state_)
            co_return fail(Errc::invalid_argument, "no stream was started, or it has ended");
        WV_CO_TRY(auto message, connection_->poll_copy_data());
        if (message) co_return take(std::move(*message));
        WV_CO_CHECK(co_await send_what_is_due());
        auto timeout = state_->next_due_at() - clock_.steady_now();
        const bool backlog = std::exchange(gathered_bytes_, 0) >= kBacklogBytes;
        WV_CO_TRY(auto woken, co_await connection_->wait_copy_data(timeout));
        if (woken == Connection::CopyWait::ended) co_return co_await end_of_stream();
        if (woken == Connection::CopyWait::readable && !backlog &&
            options_.gather_interval.count() > 0)
            co_await connection_->gather(options_.gather_interval);
    }
}

Result<std::optional<StreamEvent>> PhysicalReceiver::poll() {
    if (ended_before_ || !state_) return std::nullopt;
    WV_TRY(auto message, connection_->poll_copy_data());
    if (!message) return std::nullopt;
    return take(std::move(*message));
}

Result<StreamEvent> PhysicalReceiver::take(CopyMessage message) {
    auto owner = std::make_shared<CopyMessage>(std::move(message));
    WV_TRY(auto decoded, decode_server_message(owner->bytes()));
    SteadyTime now = clock_.steady_now();
    if (auto* data = std::get_if<XLogData>(&decoded)) {
        WV_CHECK(state_->on_wal(*data, now));
        gathered_bytes_ += data->wal.size();
        if (state_->status_due(now)) send_status_at_once(now);
        WalSlice slice;
        slice.start_lsn = data->start_lsn;
        slice.wal = data->wal;
        slice.server_end_lsn = data->server_end_lsn;
        slice.sent_at = data->sent_at;
        slice.message = std::move(owner);
        return slice;
    }
    const auto& keepalive = std::get<Keepalive>(decoded);
    state_->on_keepalive(keepalive, now);
    if (state_->status_due(now)) send_status_at_once(now);
    ServerPosition position;
    position.server_end_lsn = keepalive.server_end_lsn;
    position.sent_at = keepalive.sent_at;
    return position;
}

Task<Result<>> PhysicalReceiver::send_what_is_due() {
    SteadyTime now = clock_.steady_now();
    if (state_->dead(now))
        co_return server_failed(Errc::unavailable,
                                fmt::format("the server was asked and sent nothing for {} ms",
                                            2 * identity_.wal_sender_timeout.count()));
    if (state_->ask_due(now)) co_return co_await send_status(true);
    if (unsent_ || state_->status_due(now)) co_return co_await send_status(false);
    co_return Result<>();
}

Task<Result<>> PhysicalReceiver::send_status(bool reply_requested) {
    unsent_ = false;
    StandbyStatus status = state_->take_status(reply_requested, clock_.steady_now(), clock_.now());
    ByteBuffer bytes = encode_standby_status(status);
    co_return co_await connection_->put_copy_data(bytes);
}

Task<Result<>> PhysicalReceiver::acknowledge(Lsn flushed_lsn, bool urgent) {
    if (!state_) co_return Result<>();
    state_->acknowledge(flushed_lsn, urgent);
    if (!unsent_ && !state_->status_due(clock_.steady_now())) co_return Result<>();
    co_return co_await send_status(false);
}

bool PhysicalReceiver::acknowledge_at_once(Lsn flushed_lsn) {
    if (!state_) return true;
    state_->acknowledge(flushed_lsn, true);
    SteadyTime now = clock_.steady_now();
    if (!state_->status_due(now)) return true;
    send_status_at_once(now);
    return !unsent_;
}

// Where the socket does not take it, the next wait for the server sends it first.
void PhysicalReceiver::send_status_at_once(SteadyTime now) {
    ByteBuffer bytes = encode_standby_status(state_->take_status(false, now, clock_.now()));
    auto sent = connection_->try_put_copy_data(bytes);
    unsent_ = !sent || !*sent;
}

Task<Result<StreamEvent>> PhysicalReceiver::end_of_stream() {
    state_.reset();
    WV_CO_TRY(auto results, co_await connection_->results_after_copy());
    // At the end of a timeline the server waits for our CopyDone; at a shutdown it does not.
    if (!results.empty() && results.back().kind == QueryResult::Kind::copy_in) {
        WV_CO_CHECK(co_await connection_->put_copy_end());
        WV_CO_TRY(results, co_await connection_->results_after_copy());
    }
    StreamEnded ended;
    WV_CO_TRY(ended.next, timeline_end_of(results));
    co_return ended;
}

Task<> PhysicalReceiver::stop() {
    if (state_) {
        bool said = false;
        if (auto sent = co_await send_status(false); sent) {
            auto ended = co_await connection_->put_copy_end();
            said = ended.has_value();
        }
        SteadyTime deadline = std::chrono::steady_clock::now() + kStopTimeout;
        while (said) {
            auto message = connection_->poll_copy_data();
            if (!message) break;
            auto left = deadline - std::chrono::steady_clock::now();
            if (left <= SteadyTime::duration::zero()) break;
            if (*message) continue;
            auto woken = co_await connection_->wait_copy_data(left);
            if (!woken || *woken != Connection::CopyWait::readable) break;
        }
        state_.reset();
    }
    connection_->close();
}

Task<Result<ServerIdentity>> identify(Connection& connection, Receiver::Options options) {
    ServerIdentity identity;
    identity.server_version_num = connection.server_version_num();
    identity.address = connection.address();
    WV_CO_CHECK(server_version_of(connection));
    WV_CO_TRY(identity.segment_bytes, co_await wal_segment_bytes(connection));
    WV_CO_TRY(auto timeout, co_await show(connection, "wal_sender_timeout"));
    WV_CO_TRY(identity.wal_sender_timeout, parse_duration(timeout));
    WV_CO_TRY(identity.system, co_await identify_system(connection));
    if (!options.slot.empty()) {
        WV_CO_TRY(identity.slot, co_await find_slot(connection, std::move(options)));
    }
    WV_CO_TRY(auto standby, co_await show(connection, "in_hot_standby"));
    identity.in_recovery = standby == "on";
    co_return identity;
}

}  // namespace

Task<Result<std::unique_ptr<Receiver>>> Receiver::attach(Options options, const Clock& clock) {
    Connection::Options wanted;
    wanted.conninfo = options.conninfo;
    wanted.mode = Connection::Mode::physical_replication;
    wanted.application_name = options.application_name;
    wanted.only = options.only;
    wanted.hangup = options.hangup;
    WV_CO_TRY(auto connection, co_await Connection::connect(std::move(wanted)));
    WV_CO_TRY(auto identity, co_await identify(*connection, options));
    co_return std::make_unique<PhysicalReceiver>(std::move(options), clock, std::move(connection),
                                                 std::move(identity));
}

}  // namespace walvault::wal
