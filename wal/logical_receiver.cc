#include "wal/logical_receiver.h"

#include <fmt/format.h>

#include <utility>

#include "base/event.h"
#include "proto/replication_message.h"
#include "wal/gather_interval.h"
#include "wal/pq_error.h"
#include "wal/stream_state.h"
#include "wal/walsender_text.h"

namespace walvault::wal {
namespace {

std::string option(std::string_view name, const std::string& value) {
    return fmt::format("{} {}", name, quote_literal(value));
}

std::string start_command(const LogicalReceiver::Options& options, unsigned protocol, Lsn start) {
    std::string publications;
    for (const std::string& name : options.publications)
        publications += (publications.empty() ? "" : ",") + quote_identifier(name);
    std::string list = option("proto_version", std::to_string(protocol)) + ", " +
                       option("publication_names", publications) + ", " +
                       option("messages", "true");
    // "parallel" sends the same, and in aborts where they lie.
    if (options.streaming) list += ", " + option("streaming", protocol >= 4 ? "parallel" : "on");
    if (options.two_phase && protocol >= 3) list += ", " + option("two_phase", "on");
    if (protocol >= 4) list += ", " + option("origin", "any");
    return fmt::format("START_REPLICATION SLOT {} LOGICAL {} ({})", quote_identifier(options.slot),
                       to_string(start), list);
}

class PqLogicalReceiver final : public LogicalReceiver {
public:
    PqLogicalReceiver(Options options, const Clock& clock, std::unique_ptr<Connection> connection,
                      LogicalIdentity identity)
        : options_(std::move(options)),
          clock_(clock),
          connection_(std::move(connection)),
          identity_(std::move(identity)) {}

    const LogicalIdentity& identity() const override { return identity_; }
    Task<Result<>> start(Lsn start) override;
    Task<Result<LogicalEvent>> next() override;
    Result<std::optional<LogicalEvent>> poll() override;
    Task<Result<>> acknowledge(Lsn stored_lsn, bool urgent) override;
    LogicalTrouble trouble() const override { return trouble_; }
    void close() override { connection_->close(); }

private:
    Result<LogicalEvent> take(CopyMessage message);
    Result<> send_status_now();
    Task<Result<>> send_status(bool reply_requested);
    Task<Result<>> send_what_is_due();
    Task<Result<LogicalEvent>> end_of_stream();
    Task<Error> explain_start(Error error);
    Task<Error> explain_unsuitable(Error error);
    Error explain_stream(Error error);

    Options options_;
    const Clock& clock_;
    std::unique_ptr<Connection> connection_;
    LogicalIdentity identity_;
    std::optional<StreamState> state_;  // while streaming
    LogicalTrouble trouble_ = LogicalTrouble::none;
    bool unsent_ = false;  // a status waits for room in the socket
    GatherInterval gather_interval_;
    unsigned taken_ = 0;  // messages since they last gathered
};

Task<Result<>> PqLogicalReceiver::start(Lsn start) {
    state_.reset();
    trouble_ = LogicalTrouble::none;
    auto results = co_await connection_->query(start_command(options_, identity_.protocol, start));
    if (!results) {
        auto error = co_await explain_start(std::move(results).error());
        co_return fail_while("decode changes from the slot \"" + options_.slot + "\"",
                             std::move(error));
    }
    if (results->empty() || results->back().kind != QueryResult::Kind::copy_both)
        co_return fail(Errc::corrupt, "START_REPLICATION does not stream");
    StreamState::Options rules;
    rules.ask_interval = options_.ask_interval;
    rules.status_interval = options_.status_interval;
    rules.wal_sender_timeout = identity_.wal_sender_timeout;
    state_.emplace(rules, start, clock_.steady_now());
    unsent_ = false;
    co_return Result<>();
}

// Before the stream begins the session takes questions: what the server did not like is looked at,
// not read from its words.
Task<Error> PqLogicalReceiver::explain_start(Error error) {
    const std::string state = connection_->sqlstate();
    if (state.empty() && error.code == Errc::unavailable)
        trouble_ = LogicalTrouble::connection_lost;
    if (state == "42704") trouble_ = LogicalTrouble::slot_missing;
    if (state == "55006") trouble_ = LogicalTrouble::slot_in_use;
    if (state == "58P01") trouble_ = LogicalTrouble::slot_lost;
    if (trouble_ == LogicalTrouble::slot_lost) error.code = Errc::unusable;
    if (trouble_ != LogicalTrouble::none || state.empty()) co_return error;
    co_return co_await explain_unsuitable(std::move(error));
}

Task<Error> PqLogicalReceiver::explain_unsuitable(Error error) {
    const std::string state = connection_->sqlstate();
    auto level = co_await show(*connection_, "wal_level");
    if (level && *level != "logical") {
        trouble_ = LogicalTrouble::wal_level_too_low;
        error.code = Errc::refused;
        error.hint =
            fmt::format("wal_level is {}. Set wal_level = logical and restart PostgreSQL.", *level);
        co_return error;
    }
    auto slot = co_await connection_->query_one(
        "SELECT slot_type = 'logical' AND plugin = 'pgoutput' AND database = "
        "pg_catalog.current_database() FROM pg_catalog.pg_replication_slots WHERE slot_name = " +
        quote_literal(options_.slot));
    if (!slot || slot->rows.size() != 1) co_return error;
    const auto& row = slot->rows.front();
    if (row.at(0) != "t") {
        trouble_ = LogicalTrouble::slot_unsuitable;
        error.code = Errc::refused;
        error.hint = "It is not a slot of pgoutput in this database: drop it, or name another one.";
    } else if (state == "55000") {
        // With a slot and a wal_level that fit: the server has given it up.
        trouble_ = LogicalTrouble::slot_lost;
        error.code = Errc::unusable;
    }
    co_return error;
}

Error PqLogicalReceiver::explain_stream(Error error) {
    const std::string state = connection_->sqlstate();
    if (state.empty() || state.starts_with("57P")) trouble_ = LogicalTrouble::connection_lost;
    if (state == "42704") {
        trouble_ = LogicalTrouble::publication_missing;
        error.hint =
            "The server looks for it as of the changes it decodes: making it now helps later "
            "changes only. "
            "Drop the slot and begin anew with a snapshot.";
    }
    if (state == "58P01" || state == "55000") {
        trouble_ = LogicalTrouble::slot_lost;
        error.code = Errc::unusable;
    }
    return error;
}

Result<std::optional<LogicalEvent>> PqLogicalReceiver::poll() {
    trouble_ = LogicalTrouble::none;
    if (!state_) return std::nullopt;
    auto message = connection_->poll_copy_data();
    if (!message) return fail(explain_stream(std::move(message).error()));
    if (!*message) return std::nullopt;
    WV_TRY(LogicalEvent event, take(std::move(**message)));
    return event;
}

Result<LogicalEvent> PqLogicalReceiver::take(CopyMessage message) {
    WV_TRY(auto decoded, decode_server_message(message.bytes()));
    ++taken_;
    const SteadyTime now = clock_.steady_now();
    if (const auto* data = std::get_if<XLogData>(&decoded)) {
        state_->on_decoded(data->start_lsn, now);
        if (state_->status_due(now)) WV_CHECK(send_status_now());
        return DecodedChange{data->start_lsn, data->sent_at, data->wal, std::move(message)};
    }
    const auto& keepalive = std::get<Keepalive>(decoded);
    state_->on_decoded(keepalive.server_end_lsn, now);
    state_->on_keepalive(keepalive, now);
    if (state_->status_due(now)) WV_CHECK(send_status_now());
    return DecodedPosition{keepalive.server_end_lsn, keepalive.sent_at, keepalive.reply_requested};
}

Result<> PqLogicalReceiver::send_status_now() {
    const ByteBuffer bytes =
        encode_standby_status(state_->take_status(false, clock_.steady_now(), clock_.now()));
    auto sent = connection_->try_put_copy_data(bytes);
    if (!sent) return fail(explain_stream(std::move(sent).error()));
    unsent_ = !*sent;
    return {};
}

Task<Result<LogicalEvent>> PqLogicalReceiver::next() {
    for (;;) {
        WV_CO_TRY(auto event, poll());
        if (event) co_return std::move(*event);
        if (!state_)
            co_return fail(Errc::invalid_argument, "no stream was started, or it has ended");
        WV_CO_CHECK(co_await send_what_is_due());
        auto timeout = state_->next_due_at() - clock_.steady_now();
        auto woken = co_await connection_->wait_copy_data(timeout);
        if (!woken) co_return fail(explain_stream(std::move(woken).error()));
        if (*woken == Connection::CopyWait::ended) co_return co_await end_of_stream();
        if (*woken != Connection::CopyWait::readable) continue;
        const auto interval = gather_interval_.next(std::exchange(taken_, 0));
        co_await connection_->gather(interval);
    }
}

Task<Result<>> PqLogicalReceiver::send_what_is_due() {
    const SteadyTime now = clock_.steady_now();
    if (state_->dead(now)) {
        trouble_ = LogicalTrouble::connection_lost;
        co_return server_failed(Errc::unavailable,
                                fmt::format("the server was asked and sent nothing for {} ms",
                                            2 * identity_.wal_sender_timeout.count()));
    }
    const bool ask = state_->ask_due(now);
    if (!ask && !unsent_ && !state_->status_due(now)) co_return Result<>();
    co_return co_await send_status(ask);
}

Task<Result<>> PqLogicalReceiver::send_status(bool reply_requested) {
    StandbyStatus status = state_->take_status(reply_requested, clock_.steady_now(), clock_.now());
    ByteBuffer bytes = encode_standby_status(status);
    unsent_ = false;
    auto sent = co_await connection_->put_copy_data(bytes);
    if (!sent) co_return fail(explain_stream(std::move(sent).error()));
    co_return Result<>();
}

Task<Result<>> PqLogicalReceiver::acknowledge(Lsn stored_lsn, bool urgent) {
    if (!state_) co_return Result<>();
    state_->acknowledge(stored_lsn, urgent);
    if (!unsent_ && !state_->status_due(clock_.steady_now())) co_return Result<>();
    co_return co_await send_status(false);
}

Task<Result<LogicalEvent>> PqLogicalReceiver::end_of_stream() {
    state_.reset();
    auto results = co_await connection_->results_after_copy();
    if (!results) co_return fail(explain_stream(std::move(results).error()));
    co_return DecodingEnded{};
}

}  // namespace

Task<Result<std::unique_ptr<LogicalReceiver>>> LogicalReceiver::attach(Options options,
                                                                       const Clock& clock) {
    WV_CO_TRY(auto session, co_await connect_to_database(options.database,
                                                         Connection::Mode::database_replication));
    LogicalIdentity identity;
    identity.server_version_num = session.connection->server_version_num();
    identity.address = session.connection->address();
    identity.database = std::move(session.database);
    identity.server_encoding = std::move(session.server_encoding);
    WV_CO_TRY(const ServerVersion* version, server_version_of(*session.connection));
    identity.protocol = version->pgoutput_protocol;
    WV_CO_TRY(auto timeout, co_await show(*session.connection, "wal_sender_timeout"));
    WV_CO_TRY(identity.wal_sender_timeout, parse_duration(timeout));
    WV_CO_TRY(identity.system, co_await identify_system(*session.connection));
    co_return std::make_unique<PqLogicalReceiver>(
        std::move(options), clock, std::move(session.connection), std::move(identity));
}

std::string_view to_string(LogicalTrouble trouble) {
    switch (trouble) {
        case LogicalTrouble::none:
            return "none";
        case LogicalTrouble::slot_missing:
            return "slot missing";
        case LogicalTrouble::slot_lost:
            return "slot lost";
        case LogicalTrouble::slot_in_use:
            return "slot in use";
        case LogicalTrouble::slot_unsuitable:
            return "slot unsuitable";
        case LogicalTrouble::publication_missing:
            return "publication missing";
        case LogicalTrouble::wal_level_too_low:
            return "wal_level too low";
        case LogicalTrouble::connection_lost:
            return "connection lost";
    }
    return "?";
}

}  // namespace walvault::wal
