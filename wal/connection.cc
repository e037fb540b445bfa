#include "wal/connection.h"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "wal/conninfo.h"
#include "wal/pq_error.h"

namespace walvault::wal {

CopyMessage::CopyMessage(char* buffer, std::size_t size) : buffer_(buffer), size_(size) {}
CopyMessage::~CopyMessage() { PQfreemem(buffer_); }
CopyMessage::CopyMessage(CopyMessage&& other) noexcept
    : buffer_(std::exchange(other.buffer_, nullptr)), size_(std::exchange(other.size_, 0)) {}
CopyMessage& CopyMessage::operator=(CopyMessage&& other) noexcept {
    std::swap(buffer_, other.buffer_);
    std::swap(size_, other.size_);
    return *this;
}

namespace {

using Duration = std::chrono::steady_clock::duration;
using Socket = Hangup::Socket;
using PgConn = std::unique_ptr<PGconn, void (*)(PGconn*)>;
using PgResult = std::unique_ptr<PGresult, void (*)(PGresult*)>;

// Between two looks at the socket while output is stuck: the server may be waiting for us to read.
constexpr Duration kFlushStep = std::chrono::milliseconds(100);
constexpr Duration kForever = Duration::max();
constexpr std::size_t kWarningsKept = 3;
// Less than what libpq has room for in any read.
constexpr std::size_t kShortRead = 4096;

// Ends waits for a socket that take too long. A deadline moves with every wait and is rarely
// reached: the timer stays armed, and looks again when it rings.
class Alarm : public std::enable_shared_from_this<Alarm> {
public:
    explicit Alarm(std::shared_ptr<Socket> socket)
        : socket_(std::move(socket)), timer_(socket_->get_executor()) {}

    // False if `timeout` passed. One wait at a time. Wake-ups may be spurious: an alarm cancels the
    // other waits for its socket too.
    Task<bool> wait(Socket::wait_type type, Duration timeout) {
        auto self = shared_from_this();
        rang_ = false;
        deadline_ =
            timeout == kForever ? SteadyTime::max() : std::chrono::steady_clock::now() + timeout;
        if (deadline_ < armed_until_) arm(deadline_);
        boost::system::error_code ignored;
        co_await socket_->async_wait(type, asio::redirect_error(asio::use_awaitable, ignored));
        deadline_ = SteadyTime::max();
        co_return !rang_;
    }

    // No wait runs any more.
    void put_away() { timer_.cancel(); }

private:
    void arm(SteadyTime until) {
        armed_until_ = until;
        timer_.expires_at(until);
        timer_.async_wait([alarm = weak_from_this()](boost::system::error_code error) {
            auto self = alarm.lock();
            if (!error && self) self->ring();
        });
    }
    void ring() {
        armed_until_ = SteadyTime::max();
        if (deadline_ == SteadyTime::max()) return;
        if (std::chrono::steady_clock::now() < deadline_) return arm(deadline_);
        rang_ = true;
        boost::system::error_code ignored;
        socket_->cancel(ignored);
    }

    std::shared_ptr<Socket> socket_;
    asio::steady_timer timer_;
    SteadyTime armed_until_ = SteadyTime::max();
    SteadyTime deadline_ = SteadyTime::max();  // of the wait that runs
    bool rang_ = false;
};

Task<bool> wait_socket(std::shared_ptr<Socket> socket, Socket::wait_type type, Duration timeout) {
    auto alarm = std::make_shared<Alarm>(std::move(socket));
    co_return co_await alarm->wait(type, timeout);
}

// Asio closes what it is given, and libpq closes its own: each has a descriptor of its own.
Result<std::shared_ptr<Socket>> open_socket(const asio::any_io_executor& executor, PGconn* conn,
                                            Hangup& hangup) {
    if (hangup.hung_up()) return fail(Errc::cancelled, "the connecting to PostgreSQL was given up");
    int copy = ::dup(PQsocket(conn));
    if (copy < 0)
        return fail(Errc::unavailable, "the socket to PostgreSQL cannot be watched: no descriptor");
    auto socket = std::make_shared<Socket>(executor);
    boost::system::error_code error;
    socket->assign(copy, error);
    if (error) {
        ::close(copy);
        return fail(Errc::unavailable,
                    "the socket to PostgreSQL cannot be watched: " + error.message());
    }
    hangup.watch(socket);
    return socket;
}

class PqConnection final : public Connection {
public:
    PqConnection(PgConn conn, std::shared_ptr<Socket> socket, Hangup hangup)
        : conn_(std::move(conn)),
          socket_(std::move(socket)),
          read_alarm_(std::make_shared<Alarm>(socket_)),
          hangup_(std::move(hangup)) {
        PQsetErrorVerbosity(conn_.get(), PQERRORS_DEFAULT);
        PQsetNoticeReceiver(conn_.get(), on_notice, this);
    }
    ~PqConnection() override { PqConnection::close(); }

    Task<Result<std::vector<QueryResult>>> query(std::string sql) override;
    Task<Result<QueryResult>> query_one(std::string sql) override;
    Task<Result<std::optional<CopyMessage>>> next_copy_data() override;
    Result<std::optional<CopyMessage>> poll_copy_data() override;
    Task<Result<CopyWait>> wait_copy_data(Duration timeout) override;
    Task<> gather(Duration duration) override;
    Task<Result<>> put_copy_data(ByteSpan bytes) override;
    Result<bool> try_put_copy_data(ByteSpan bytes) override;
    Task<Result<>> put_copy_end() override;
    Task<Result<std::vector<QueryResult>>> results_after_copy() override { return collect(); }

    int server_version_num() const override { return conn_ ? PQserverVersion(conn_.get()) : 0; }
    ServerAddress address() const override;
    std::string sqlstate() const override { return sqlstate_; }
    void close() override;

private:
    static void on_notice(void* self, const PGresult* notice);

    Result<> usable() const;
    Error lost();
    // What was received may wait where no wait on the socket sees it.
    bool hides_input() const;
    // The last read had room for more than it found: the next one is for when the socket wakes.
    bool took_all() const {
        return consumed_bytes_ > 0 && consumed_bytes_ < kShortRead && !hides_input();
    }
    // Reads what is there without waiting; false when the connection has ended.
    bool consume();
    Task<Result<>> flush();
    Task<> wait_writable();
    Task<Result<std::vector<QueryResult>>> collect();
    // False when the last result was taken.
    Task<Result<bool>> take_result(std::vector<QueryResult>& results, std::optional<Error>& error);
    Error result_error(const PGresult* result);

    PgConn conn_;
    std::shared_ptr<Socket> socket_;
    std::shared_ptr<Alarm> read_alarm_;
    int unwatched_ = -1;   // the socket's descriptor while it is not watched
    int write_waits_ = 0;  // that need it to be
    Hangup hangup_;
    bool copy_ended_ = false;
    bool lost_ = false;
    std::size_t consumed_bytes_ = 0;  // of messages, since the last read that no wait has followed
    std::string sqlstate_;
    std::vector<std::string> warnings_;  // the first ones of the current statement, and its last
};

void PqConnection::on_notice(void* self, const PGresult* notice) {
    const char* severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char* text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
    if (text == nullptr) return;
    bool warning = severity != nullptr && std::string_view(severity) == "WARNING";
    auto& warnings = static_cast<PqConnection*>(self)->warnings_;
    // The first ones name what is wrong, the last one often sums it up.
    if (warning && warnings.size() < kWarningsKept)
        warnings.emplace_back(text);
    else if (warning)
        warnings.back() = text;
    log::write(warning ? log::Level::warn : log::Level::debug, "server.notice", text);
}

void PqConnection::close() {
    if (!conn_) return;
    boost::system::error_code ignored;
    socket_->close(ignored);
    if (unwatched_ >= 0) ::close(std::exchange(unwatched_, -1));
    read_alarm_->put_away();
    conn_.reset();
}

Result<> PqConnection::usable() const {
    if (!conn_ || hangup_.hung_up())
        return fail(Errc::cancelled, "the connection to PostgreSQL was closed");
    return {};
}

Error PqConnection::lost() {
    lost_ = true;
    sqlstate_.clear();
    std::string text = readable_connect_message(PQerrorMessage(conn_.get()));
    const char* password = PQpass(conn_.get());
    return Error{Errc::unavailable,
                 without_password("the connection to PostgreSQL was lost: " + text,
                                  password == nullptr ? "" : password),
                 "", Origin::server};
}

// A TLS record can be larger than the room in libpq's buffer; its rest then waits inside the TLS
// library, where no wait on the socket sees it.
bool PqConnection::hides_input() const {
    return PQsslInUse(conn_.get()) != 0 || PQgssEncInUse(conn_.get()) != 0;
}

bool PqConnection::consume() {
    int reads = hides_input() ? 3 : 1;
    while (!lost_ && reads-- > 0)
        if (PQconsumeInput(conn_.get()) == 0) lost_ = true;
    return !lost_;
}

Task<Result<>> PqConnection::flush() {
    for (;;) {
        WV_CO_CHECK(usable());
        int left = PQflush(conn_.get());
        if (left == 0) co_return Result<>();
        if (left < 0 || !consume()) co_return fail(lost());
        co_await wait_writable();
    }
}

// Wake-ups may be spurious.
Task<> PqConnection::wait_writable() {
    constexpr Duration kUnwatchedStep = std::chrono::microseconds(100);
    if (unwatched_ >= 0) co_return co_await sleep_for(kUnwatchedStep);
    ++write_waits_;
    co_await wait_socket(socket_, Socket::wait_write, kFlushStep);
    --write_waits_;
}

QueryResult to_query_result(const PGresult* result) {
    QueryResult out;
    switch (PQresultStatus(result)) {
        case PGRES_COPY_IN:
            out.kind = QueryResult::Kind::copy_in;
            return out;
        case PGRES_COPY_OUT:
            out.kind = QueryResult::Kind::copy_out;
            return out;
        case PGRES_COPY_BOTH:
            out.kind = QueryResult::Kind::copy_both;
            return out;
        case PGRES_TUPLES_OK:
            out.kind = QueryResult::Kind::rows;
            break;
        default:
            return out;
    }
    int columns = PQnfields(result);
    for (int column = 0; column < columns; ++column)
        out.columns.emplace_back(PQfname(result, column));
    for (int row = 0; row < PQntuples(result); ++row) {
        auto& values = out.rows.emplace_back();
        for (int column = 0; column < columns; ++column) {
            auto& value = values.emplace_back();
            if (PQgetisnull(result, row, column)) continue;
            value.emplace(PQgetvalue(result, row, column),
                          static_cast<std::size_t>(PQgetlength(result, row, column)));
        }
    }
    return out;
}

bool is_copy(const QueryResult& result) {
    return result.kind != QueryResult::Kind::rows && result.kind != QueryResult::Kind::command;
}

Error PqConnection::result_error(const PGresult* result) {
    std::string state = sqlstate_of_result(result);
    if (state.empty() && PQstatus(conn_.get()) == CONNECTION_BAD) return lost();
    sqlstate_ = state;
    const char* role = PQuser(conn_.get());
    Error error = error_of_result(result, role == nullptr ? "ROLE" : role);
    // Without a SQLSTATE libpq itself refused: the same call would fail again.
    if (state.empty()) error.code = Errc::invalid_argument;
    // The error counts the damaged pages; the warnings before it name them.
    if (error.code == Errc::corrupt)
        for (const std::string& warning : warnings_)
            error.message += "; " + warning;
    return error;
}

Task<Result<bool>> PqConnection::take_result(std::vector<QueryResult>& results,
                                             std::optional<Error>& error) {
    while (!lost_ && PQisBusy(conn_.get())) {
        co_await read_alarm_->wait(Socket::wait_read, kForever);
        WV_CO_CHECK(usable());
        // What came before the end of the connection is still to be parsed.
        consume();
    }
    PgResult result(PQgetResult(conn_.get()), PQclear);
    if (!result) co_return false;
    ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE ||
        status == PGRES_NONFATAL_ERROR) {
        bool completed = !results.empty() && results.back().kind == QueryResult::Kind::command;
        bool connection_ended =
            sqlstate_of_result(result.get()).empty() && PQstatus(conn_.get()) == CONNECTION_BAD;
        if (!error && !(completed && connection_ended)) error = result_error(result.get());
        co_return !connection_ended;
    }
    results.push_back(to_query_result(result.get()));
    co_return !is_copy(results.back());
}

Task<Result<std::vector<QueryResult>>> PqConnection::collect() {
    WV_CO_CHECK(usable());
    std::vector<QueryResult> results;
    std::optional<Error> error;
    for (bool more = true; more;) {
        WV_CO_TRY(more, co_await take_result(results, error));
    }
    if (error) co_return fail(std::move(*error));
    copy_ended_ = false;
    consumed_bytes_ = 0;
    co_return std::move(results);
}

Task<Result<std::vector<QueryResult>>> PqConnection::query(std::string sql) {
    WV_CO_CHECK(usable());
    sqlstate_.clear();
    warnings_.clear();
    if (sql.find('\0') != std::string::npos)
        co_return fail(Errc::invalid_argument, "a statement holds a NUL byte");
    if (PQsendQuery(conn_.get(), sql.c_str()) == 0) {
        if (PQstatus(conn_.get()) == CONNECTION_BAD) co_return fail(lost());
        co_return fail(
            Errc::invalid_argument,
            "the statement was not sent: " + readable_connect_message(PQerrorMessage(conn_.get())));
    }
    WV_CO_CHECK(co_await flush());
    co_return co_await collect();
}

Task<Result<QueryResult>> PqConnection::query_one(std::string sql) {
    WV_CO_TRY(auto results, co_await query(std::move(sql)));
    if (results.empty())
        co_return fail(Errc::corrupt, "the server answered a statement with nothing");
    co_return std::move(results.front());
}

Result<std::optional<CopyMessage>> PqConnection::poll_copy_data() {
    WV_CHECK(usable());
    if (copy_ended_) return std::nullopt;
    char* buffer = nullptr;
    int size = PQgetCopyData(conn_.get(), &buffer, 1);
    if (size == 0 && !took_all()) {
        // Whole messages can have come together with the end of the connection.
        consume();
        consumed_bytes_ = 0;
        size = PQgetCopyData(conn_.get(), &buffer, 1);
    }
    if (size > 0) {
        consumed_bytes_ += static_cast<std::size_t>(size);
        return CopyMessage(buffer, static_cast<std::size_t>(size));
    }
    if (size == -1)
        copy_ended_ = true;
    else if (size == -2 || lost_)
        return fail(lost());
    return std::nullopt;
}

Task<Result<Connection::CopyWait>> PqConnection::wait_copy_data(Duration timeout) {
    WV_CO_CHECK(usable());
    consumed_bytes_ = 0;
    if (copy_ended_) co_return CopyWait::ended;
    if (timeout <= Duration::zero()) co_return CopyWait::timed_out;
    bool woken = co_await read_alarm_->wait(Socket::wait_read, timeout);
    WV_CO_CHECK(usable());
    co_return woken ? CopyWait::readable : CopyWait::timed_out;
}

Task<> PqConnection::gather(Duration duration) {
    if (!usable() || write_waits_ > 0 || unwatched_ >= 0) co_return co_await sleep_for(duration);
    unwatched_ = socket_->release();
    co_await sleep_for(duration);
    if (unwatched_ < 0) co_return;  // closed meanwhile
    boost::system::error_code error;
    socket_->assign(unwatched_, error);
    if (error) {
        ::close(unwatched_);
        lost_ = true;
    }
    unwatched_ = -1;
}

Task<Result<std::optional<CopyMessage>>> PqConnection::next_copy_data() {
    for (;;) {
        WV_CO_TRY(auto message, poll_copy_data());
        if (message || copy_ended_) co_return std::move(message);
        consumed_bytes_ = 0;
        co_await read_alarm_->wait(Socket::wait_read, kForever);
    }
}

Task<Result<>> PqConnection::put_copy_data(ByteSpan bytes) {
    for (;;) {
        WV_CO_CHECK(usable());
        int put = PQputCopyData(conn_.get(), reinterpret_cast<const char*>(bytes.data()),
                                static_cast<int>(bytes.size()));
        if (put < 0) lost_ = true;
        if (put != 0) break;
        co_await wait_writable();
    }
    if (lost_) co_return Result<>();
    auto flushed = co_await flush();
    if (!flushed && lost_) co_return Result<>();
    co_return flushed;
}

Result<bool> PqConnection::try_put_copy_data(ByteSpan bytes) {
    WV_CHECK(usable());
    int put = PQputCopyData(conn_.get(), reinterpret_cast<const char*>(bytes.data()),
                            static_cast<int>(bytes.size()));
    if (put == 0) return false;
    int left = put < 0 ? -1 : PQflush(conn_.get());
    if (left < 0) lost_ = true;
    return left <= 0;
}

Task<Result<>> PqConnection::put_copy_end() {
    for (;;) {
        WV_CO_CHECK(usable());
        int put = PQputCopyEnd(conn_.get(), nullptr);
        if (put < 0) co_return fail(lost());
        if (put > 0) break;
        co_await wait_writable();
    }
    co_return co_await flush();
}

PgConn start_connecting(const ConnectSettings& settings) {
    std::vector<const char*> names;
    std::vector<const char*> values;
    for (const auto& [name, value] : settings) {
        names.push_back(name.c_str());
        values.push_back(value.c_str());
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    PgConn conn(PQconnectStartParams(names.data(), values.data(), 0), PQfinish);
    if (!conn) return conn;
    PQsetErrorVerbosity(conn.get(), PQERRORS_VERBOSE);
    // libpq's own receiver writes to stderr.
    PQsetNoticeReceiver(
        conn.get(), [](void*, const PGresult*) {}, nullptr);
    return conn;
}

Error connect_timed_out(PGconn* conn, std::chrono::seconds timeout) {
    const char* host = PQhost(conn);
    const char* port = PQport(conn);
    return Error{
        Errc::unavailable,
        fmt::format("connect to PostgreSQL at {}:{}: no connection within {} s",
                    host == nullptr ? "?" : host, port == nullptr ? "?" : port, timeout.count()),
        hint_of_sqlstate("", ""), Origin::server};
}

ServerAddress address_of(const PGconn* conn) {
    auto text = [](const char* value) { return std::string(value == nullptr ? "" : value); };
    return {text(PQhost(conn)), text(PQhostaddr(conn)), text(PQport(conn))};
}

// libpq goes on to the next server by itself when one refuses, but leaves it to the caller to give
// up one that says nothing. `silent` is set to that one.
Task<Result<std::unique_ptr<Connection>>> connect_to_any(const ConnectSettings& settings,
                                                         std::chrono::seconds timeout,
                                                         Hangup hangup,
                                                         std::optional<ServerAddress>& silent) {
    auto executor = co_await asio::this_coro::executor;
    PgConn conn = start_connecting(settings);
    if (!conn) co_return fail(Errc::unavailable, "connect to PostgreSQL: libpq has no memory");
    if (PQstatus(conn.get()) == CONNECTION_BAD) co_return fail(error_of_connect(conn.get()));
    SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
    ServerAddress tried = address_of(conn.get());
    std::shared_ptr<Socket> socket;
    auto polled = PGRES_POLLING_WRITING;
    while (polled != PGRES_POLLING_OK) {
        if (polled == PGRES_POLLING_FAILED) co_return fail(error_of_connect(conn.get()));
        if (ServerAddress now = address_of(conn.get()); now != tried) {
            tried = std::move(now);
            deadline = std::chrono::steady_clock::now() + timeout;
        }
        // With several hosts or addresses libpq closes one socket and opens the next, which often
        // has the same number: only a fresh duplicate is sure to watch the right one.
        WV_CO_TRY(socket, open_socket(executor, conn.get(), hangup));
        auto type = polled == PGRES_POLLING_READING ? Socket::wait_read : Socket::wait_write;
        bool woken =
            co_await wait_socket(socket, type, deadline - std::chrono::steady_clock::now());
        if (!woken) {
            silent = tried;
            co_return fail(connect_timed_out(conn.get(), timeout));
        }
        if (hangup.hung_up()) continue;  // open_socket() says so
        polled = PQconnectPoll(conn.get());
    }
    WV_CO_TRY(socket, open_socket(executor, conn.get(), hangup));
    if (PQsetnonblocking(conn.get(), 1) != 0)
        co_return fail(Errc::unavailable,
                       "connect to PostgreSQL: the socket cannot be made non-blocking");
    co_return std::make_unique<PqConnection>(std::move(conn), std::move(socket), hangup);
}

}  // namespace

ServerAddress PqConnection::address() const {
    return conn_ ? address_of(conn_.get()) : ServerAddress{};
}

Task<Result<std::unique_ptr<Connection>>> Connection::connect(Options options) {
    WV_CO_TRY(auto settings, connect_settings(options));
    auto timeout = connect_timeout_of(settings, options.connect_timeout);
    for (;;) {
        std::optional<ServerAddress> silent;
        auto connected = co_await connect_to_any(settings, timeout, options.hangup, silent);
        std::vector<ServerAddress> others = servers_of(settings);
        if (connected || !silent || others.size() == 1) co_return connected;
        // The roles of the others are looked at once more, since what was asked of them may be what
        // they are only in comparison ("prefer-standby").
        auto gone = std::find_if(others.begin(), others.end(),
                                 [&](const auto& each) { return same_server(each, *silent); });
        if (gone == others.end()) co_return connected;
        others.erase(gone);
        log::debug("server.silent", connected.error().message, {{"servers_left", others.size()}});
        set_servers(settings, others);
    }
}

static std::string quoted(const std::string& text, char quote) {
    WV_ASSERT(text.find('\0') == std::string::npos);
    std::string out(1, quote);
    for (char c : text) {
        if (c == quote) out += quote;
        out += c;
    }
    return out + quote;
}

std::string quote_literal(const std::string& text) { return quoted(text, '\''); }
std::string quote_identifier(const std::string& text) { return quoted(text, '"'); }

}  // namespace walvault::wal
