#include "agent/journal_capture.h"

#include <fmt/format.h>

#include "agent/column_masks.h"
#include "agent/journal_session.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/sealer.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// Nothing but quiet: so often, or after so much WAL, the slot moves on.
constexpr std::chrono::seconds kQuietEvery{10};
constexpr std::uint64_t kQuietBytes = 16 << 20;
// What the loop takes from memory before it lets others run.
constexpr int kEventsAtOnce = 256;

// What follows the relation's oid in a change.
ByteSpan tuples_of(ByteSpan message, bool in_stream) {
    const std::size_t header = 1 + (in_stream ? 4 : 0) + 4;
    return message.size() > header ? message.subspan(header) : ByteSpan{};
}

// The subtransaction that a message in a stream block belongs to.
Xid xid_of(const pgoutput::AnyMessage& message) {
    return std::visit(
        [](const auto& each) -> Xid {
            if constexpr (requires { each.xid; }) return each.xid;
            return 0;
        },
        message);
}

}  // namespace

std::string journal_slot_name(const std::string& prefix, const std::string& database) {
    constexpr std::size_t kSlotNameBytesMax = 63;
    std::string name = prefix + "_";
    bool is_plain = true;
    for (const char each : database) {
        const bool good =
            (each >= 'a' && each <= 'z') || (each >= '0' && each <= '9') || each == '_';
        const bool upper = each >= 'A' && each <= 'Z';
        name += good ? each : upper ? static_cast<char>(each - 'A' + 'a') : '_';
        is_plain = is_plain && good;
    }
    if (is_plain && name.size() <= kSlotNameBytesMax) return name;
    const std::string checksum = fmt::format("_{:08x}", crc32c(as_bytes(database)));
    name.resize(std::min(name.size(), kSlotNameBytesMax - checksum.size()));
    return name + checksum;
}

JournalCapture::JournalCapture(const Services& services, const ServerConfig& server,
                               const std::vector<ClassConfig>& classes, std::string database,
                               AgentMetrics::Journal metrics)
    : services_(services),
      server_(server),
      classes_(classes),
      database_(std::move(database)),
      metrics_(metrics),
      pipeline_(services.executor, {services.cpu, services.store}, services.repository,
                services.clock, {}),
      backoff_(1s, 60s, random_number()),
      stopped_(services.executor) {
    status_.database = database_;
    status_.slot = journal_slot_name(server_.journal.slot, database_);
}

JournalCapture::~JournalCapture() = default;

void JournalCapture::stop() {
    stopping_ = true;
    // Attaching is cut short; a session ends by itself.
    if (!status_.connected) hangup_.hang_up();
    stopped_.notify();
}

Task<> JournalCapture::run() {
    while (!stopping_) {
        hangup_ = wal::Hangup();
        auto done = co_await session();
        status_.connected = false;
        metrics_.up.set(0);
        if (!done && !stopping_) note_failure(done.error());
        if (pipeline_.error()) co_await recover();
        if (!stopping_) co_await wait_for(stopped_, backoff_.next());
    }
    if (auto finished = co_await pipeline_.finish(); !finished)
        log::error("journal.not_closed", finished.error().message, {{"database", database_}});
}

// What is told once is not told at each attempt.
void JournalCapture::note_failure(const Error& error) {
    const bool is_new = !status_.error || status_.error->message != error.message;
    status_.error = error;
    metrics_.errors_total.add();
    if (is_new)
        log::error("journal.detached", error.message,
                   {{"database", database_}, {"hint", error.hint}});
}

// Tails that a write error broke are read back: what they hold becomes packs.
Task<> JournalCapture::recover() {
    auto finished = co_await pipeline_.finish();
    auto recover = [this] { return services_.repository.recover_tails(); };
    auto recovered = co_await run_on(services_.store, std::move(recover));
    if (!recovered)
        log::error("journal.not_recovered", recovered.error().message, {{"database", database_}});
    else if (!finished)
        log::warn("journal.recovered", "its tails were closed after an error",
                  {{"database", database_}});
}

wal::DatabaseOptions JournalCapture::database_options(const std::string& application_name) const {
    wal::DatabaseOptions options;
    options.conninfo = server_.conninfo;
    options.database = database_;
    options.application_name = application_name;
    options.hangup = hangup_;
    return options;
}

Task<Result<>> JournalCapture::session() {
    Session session(*this);
    WV_CO_CHECK(co_await begin_session(session));
    status_.connected = true;
    status_.error.reset();
    metrics_.up.set(1);
    backoff_.reset();
    log::info("journal.attached", "row changes are being received",
              {{"database", database_},
               {"slot", status_.slot},
               {"from_lsn", to_string(pipeline_.stored_lsn())}});
    session.tasks.spawn(flush_loop(session));
    session.tasks.spawn(acknowledge_loop(session));
    session.tasks.spawn(watch_loop(session));
    session.tasks.spawn(snapshot_loop(session));
    session.tasks.spawn(stop_loop(session));
    auto streamed = co_await stream(session);
    if (!streamed) note_trouble(session, streamed.error());
    co_await end_session(session);
    co_return streamed;
}

Task<> JournalCapture::end_session(Session& session) {
    // What is whole is stored and told to the server, where it still listens.
    if (!pipeline_.error() && session.router && !session.router->is_inside_transaction())
        flush(session);
    session.over = true;
    session.receiver->close();
    hangup_.hang_up();
    session.changed.notify();
    stopped_.notify();
    pipeline_.changed().notify();
    auto ended = co_await pipeline_.end_session();
    if (!ended) log::debug("journal.session_broken", ended.error().message);
    co_await session.tasks.join();
}

// What is whole by then is stored and told to the server before it is left.
Task<> JournalCapture::stop_loop(Session& session) {
    while (!stopping_ && !session.over)
        co_await stopped_.wait();
    if (session.over) co_return;
    if (!session.router->is_inside_transaction()) flush(session);
    while (!pipeline_.error() && !pipeline_.is_idle())
        co_await pipeline_.changed().wait();
    if (!session.over && !pipeline_.error()) {
        const Lsn stored = pipeline_.stored_lsn();
        if (auto told = co_await session.receiver->acknowledge(stored, true); !told)
            log::debug("journal.not_told", told.error().message);
    }
    if (!session.over) session.receiver->close();
    // Also what waits for the catalogue.
    hangup_.hang_up();
}

void JournalCapture::note_trouble(const Session& session, const Error& error) {
    switch (session.receiver->trouble()) {
        case wal::LogicalTrouble::slot_lost:
            slot_unusable_ = "the server has invalidated the journal's slot";
            break;
        case wal::LogicalTrouble::publication_missing:
            slot_unusable_ = "the journal's publication was dropped";
            break;
        default:
            break;
    }
    if (error.code != Errc::no_space || session.staging.transaction_count() == 0 || !streams_)
        return;
    streams_ = false;
    log::warn(
        "journal.staging_full",
        "large transactions are kept by the server until they are committed: " + error.message,
        {{"database", database_}});
}

Task<Result<>> JournalCapture::stream(Session& session) {
    while (!stopping_) {
        for (int count = 0; count < kEventsAtOnce; ++count) {
            WV_CO_TRY(std::optional<wal::LogicalEvent> event, session.receiver->poll());
            if (!event) break;
            WV_CO_TRY(const bool taken, take_now(session, *event));
            if (!taken) WV_CO_CHECK(co_await take_change(session));
            if (session.router->has_full()) WV_CO_CHECK(co_await put_full(session));
        }
        WV_CO_CHECK(co_await pipeline_.wait_for_room());
        session.streamed.sql.reset();
        WV_CO_TRY(wal::LogicalEvent event, co_await session.receiver->next());
        WV_CO_TRY(const bool taken, take_now(session, event));
        if (!taken) WV_CO_CHECK(co_await take_change(session));
        if (session.router->has_full()) WV_CO_CHECK(co_await put_full(session));
        if (session.server_ended) break;
    }
    co_return Result<>{};
}

// Most of what comes needs no coroutine, of which three for each change would cost as much as the
// rest. False: what it was is in session.message, for take_change().
Result<bool> JournalCapture::take_now(Session& session, wal::LogicalEvent& event) {
    if (const auto* position = std::get_if<wal::DecodedPosition>(&event)) {
        take_position(session, *position);
        return true;
    }
    auto* change = std::get_if<wal::DecodedChange>(&event);
    if (change == nullptr) {
        session.server_ended = true;
        return true;
    }
    WV_TRY(session.message, session.decoder.decode(change->data));
    const bool is_of_stream = std::holds_alternative<pgoutput::StreamStart>(session.message) ||
                              std::holds_alternative<pgoutput::StreamStop>(session.message) ||
                              std::holds_alternative<pgoutput::StreamAbort>(session.message) ||
                              std::holds_alternative<pgoutput::StreamCommit>(session.message) ||
                              session.decoder.stream_xid() != 0;
    if (is_of_stream || std::holds_alternative<pgoutput::Relation>(session.message)) {
        session.change = std::move(*change);
        return false;
    }
    WV_CHECK(add(session, session.message, tuples_of(change->data, false)));
    return true;
}

// What take_now() left.
Task<Result<>> JournalCapture::take_change(Session& session) {
    const pgoutput::AnyMessage& message = session.message;
    if (std::holds_alternative<pgoutput::StreamStart>(message) ||
        std::holds_alternative<pgoutput::StreamStop>(message))
        co_return Result<>{};
    if (const auto* abort = std::get_if<pgoutput::StreamAbort>(&message)) {
        session.staging.abort(abort->xid, abort->subxid);
        status_.staged_bytes = session.staging.stored_bytes();
        co_return Result<>{};
    }
    if (const auto* commit = std::get_if<pgoutput::StreamCommit>(&message))
        co_return co_await take_stream_commit(session, *commit);
    if (const Xid xid = session.decoder.stream_xid(); xid != 0) {
        WV_CO_CHECK(co_await session.staging.add(xid, xid_of(message), session.change->data));
        status_.staged_bytes = session.staging.stored_bytes();
        co_return Result<>{};
    }
    co_return co_await take_whole(session, message, session.change->data, false);
}

Task<Result<>> JournalCapture::take_stream_commit(Session& session,
                                                  const pgoutput::StreamCommit& commit) {
    const pgoutput::AnyMessage begin =
        pgoutput::Begin{commit.commit_lsn, commit.committed_at, commit.xid};
    WV_CO_CHECK(co_await take_whole(session, begin, {}, false));
    const JournalStaging::Sink sink = [this, &session](const pgoutput::AnyMessage& message,
                                                       ByteSpan bytes) {
        return take_whole(session, message, bytes, true);
    };
    WV_CO_CHECK(co_await session.staging.take(commit.xid, sink));
    const pgoutput::AnyMessage end =
        pgoutput::Commit{commit.commit_lsn, commit.end_lsn, commit.committed_at};
    WV_CO_CHECK(co_await take_whole(session, end, {}, false));
    status_.staged_bytes = session.staging.stored_bytes();
    co_return Result<>{};
}

Task<Result<>> JournalCapture::take_whole(Session& session, const pgoutput::AnyMessage& message,
                                          ByteSpan bytes, bool in_stream) {
    if (const auto* relation = std::get_if<pgoutput::Relation>(&message))
        co_return co_await take_relation(session, *relation);
    WV_CO_CHECK(add(session, message, tuples_of(bytes, in_stream)));
    if (session.router->has_full()) WV_CO_CHECK(co_await put_full(session));
    co_return Result<>{};
}

Result<> JournalCapture::add(Session& session, const pgoutput::AnyMessage& message,
                             ByteSpan tuples) {
    if (session.router->is_empty()) session.pending_since = services_.clock.steady_now();
    WV_CHECK(session.router->take(message, tuples));
    const auto* commit = std::get_if<pgoutput::Commit>(&message);
    if (commit == nullptr) return {};
    session.last_commit_at = commit->committed_at;
    session.taken_lsn = commit->end_lsn;
    if (services_.clock.steady_now() - session.pending_since >= server_.journal.flush_interval)
        flush(session);
    else
        session.changed.notify();
    return {};
}

Task<Result<>> JournalCapture::put_full(Session& session) {
    pipeline_.put(session.router->take_full());
    return pipeline_.wait_for_room();
}

Task<Result<>> JournalCapture::take_relation(Session& session, const pgoutput::Relation& relation) {
    WV_CO_TRY(const TableFacts facts, co_await facts_of(session.streamed, relation));
    // One that was altered: its form is to be compared again, when the catalogue is looked at next.
    if (auto read = read_tables_.find(relation.oid); read != read_tables_.end())
        read->second.version.reset();
    co_return session.router->take_relation(relation, facts);
}

void JournalCapture::flush(Session& session) {
    const Lsn end = std::max(session.router->end_lsn(), session.quiet_lsn);
    JournalCut cut = session.router->take_all();
    cut.end_lsn = end;
    session.flushing_lsn = end;
    status_.last_commit_at = session.last_commit_at;
    pipeline_.put(std::move(cut));
}

// A database in which nothing happens would hold back the WAL of all others: what the server has
// decoded up to here holds nothing for this journal.
void JournalCapture::take_position(Session& session, const wal::DecodedPosition& position) {
    const bool is_open =
        session.router->is_inside_transaction() || session.staging.transaction_count() > 0;
    const SteadyTime now = services_.clock.steady_now();
    if (is_open || position.decoded_lsn <= std::max(session.flushing_lsn, session.taken_lsn))
        return;
    const std::uint64_t bytes = position.decoded_lsn - pipeline_.stored_lsn();
    const bool is_due = position.reply_requested || bytes >= kQuietBytes ||
                        now - session.last_quiet_at >= kQuietEvery;
    if (!is_due) return;
    session.last_quiet_at = now;
    session.quiet_lsn = position.decoded_lsn;
    flush(session);
}

Task<> JournalCapture::flush_loop(Session& session) {
    while (!session.over) {
        if (session.router->is_empty() || session.router->is_inside_transaction()) {
            co_await session.changed.wait();
            continue;
        }
        const SteadyTime due = session.pending_since + server_.journal.flush_interval;
        const SteadyTime now = services_.clock.steady_now();
        if (now >= due)
            flush(session);
        else
            co_await wait_for(session.changed, due - now);
    }
}

// Only what the pipeline has synced is told; nothing else says what that is.
Task<> JournalCapture::acknowledge_loop(Session& session) {
    Lsn told;
    while (!session.over && !pipeline_.error()) {
        const Lsn stored = pipeline_.stored_lsn();
        if (stored > told) {
            const bool is_whole = stored >= session.flushing_lsn;
            auto done = co_await session.receiver->acknowledge(stored, is_whole);
            if (!done) co_return;
            told = stored;
            status_.stored_lsn = stored;
            publish(session);
            continue;
        }
        co_await pipeline_.changed().wait();
    }
    // Broken: the stream is of no use any more.
    if (pipeline_.error()) session.receiver->close();
}

void JournalCapture::publish(Session& session) {
    const auto transactions = session.router->transaction_count();
    const auto changes = session.router->change_count();
    const auto new_transactions =
        transactions - std::exchange(session.counted_transactions, transactions);
    const auto new_changes = changes - std::exchange(session.counted_changes, changes);
    status_.transaction_count += new_transactions;
    status_.change_count += new_changes;
    metrics_.transactions_total.add(static_cast<double>(new_transactions));
    metrics_.changes_total.add(static_cast<double>(new_changes));
    const auto bytes = pipeline_.stored_bytes();
    metrics_.stored_bytes_total.add(
        static_cast<double>(bytes - std::exchange(counted_bytes_, bytes)));
    metrics_.stored_lsn_bytes.set(static_cast<double>(status_.stored_lsn.value));
    metrics_.staged_bytes.set(static_cast<double>(status_.staged_bytes));
    metrics_.last_commit_timestamp_seconds.set(to_seconds(status_.last_commit_at));
}

JournalRouter::Options JournalCapture::router_options() const {
    JournalRouter::Options options;
    std::vector<wal::TablePatterns> patterns;
    for (const ClassConfig& each : classes_)
        if (auto parsed = wal::TablePatterns::parse(each.tables)) patterns.push_back(*parsed);
    options.journal_count = 1 + patterns.size();
    options.journal_of = [patterns](const TableNames& names) {
        for (std::size_t i = 0; i < patterns.size(); ++i)
            if (patterns[i].select(names.schema, names.table) ||
                (!names.root_table.empty() &&
                 patterns[i].select(names.root_schema, names.root_table)))
                return i + 1;
        return std::size_t{0};
    };
    options.rule_of = [masks = ColumnMasks(server_.journal)](const TableNames& names,
                                                             std::string_view column) {
        return masks.rule_of(names, column);
    };
    options.mask = [key = &services_.repository.content_key()](std::string_view column,
                                                               std::string_view value) {
        const std::string text =
            fmt::format("walvault mask 1 {}", column) + '\0' + std::string(value);
        return to_hex(storage::content_id(*key, as_bytes(text))).substr(0, 32);
    };
    return options;
}

}  // namespace walvault::agent
