#include "storage/s3_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <vector>

#include "base/log.h"
#include "storage/rate_limit.h"
#include "storage/s3_digest.h"

namespace walvault::storage {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kRefusalBytesMax = 64_KiB;
constexpr std::size_t kHeaderBytesMax = 4_KiB;
constexpr std::size_t kIdleConnectionsMax = 16;
// The digest that signs a body protects it as well, and costs a fifth of an MD5. Stores want the
// latter too where objects are locked, also by a rule of the bucket that is not known here.
constexpr std::uint64_t kMd5BytesMax = 1_MiB;
// Of a source, to be digested: what stays in the processor's cache.
constexpr std::uint64_t kDigestedAtOnce = 256_KiB;
// With the headers in one piece: what comes to a store in two wakes it twice.
constexpr std::uint64_t kSentWithHeadersMax = 64_KiB;
constexpr milliseconds kFirstWait{100};
constexpr milliseconds kLongestWait{10'000};
// The whole of a request may take a minute, and what its bytes need at this speed.
constexpr seconds kRequestTime{60};
constexpr std::uint64_t kSlowestBytesPerSecond = 32_KiB;
constexpr std::uint64_t kUnlimitedAtOnce = 32;  // where the options do not say how many
constexpr seconds kLongestRequest{6 * 3600};
// Others are not kept: what is kept is bounded by what is asked for.
constexpr std::string_view kKeptHeaders[] = {"content-length",
                                             "content-range",
                                             "etag",
                                             "x-amz-bucket-region",
                                             "retry-after",
                                             "x-amz-meta-walvault-put",
                                             "x-amz-restore",
                                             "x-amz-storage-class",
                                             "x-amz-archive-status",
                                             "x-amz-version-id",
                                             "x-amz-object-lock-mode",
                                             "x-amz-object-lock-retain-until-date",
                                             "x-amz-object-lock-legal-hold",
                                             "x-amz-tagging-count"};

void require_curl() {
    static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    WV_ASSERT(ready == CURLE_OK);
}

// A handle of curl, which keeps its connection from request to request.
struct Connection {
    CURL* easy = curl_easy_init();
    int socket = -1;  // the last that was opened
    Connection() { WV_ASSERT(easy != nullptr); }
    ~Connection() { curl_easy_cleanup(easy); }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
};

// Wiped: a session token is among the lines.
struct HeaderLines {
    curl_slist* first = nullptr;
    HeaderLines() = default;
    HeaderLines(const HeaderLines&) = delete;
    HeaderLines& operator=(const HeaderLines&) = delete;
    ~HeaderLines() {
        for (curl_slist* line = first; line != nullptr; line = line->next)
            wipe({reinterpret_cast<std::byte*>(line->data), std::strlen(line->data)});
        curl_slist_free_all(first);
    }
    void add(const std::string& line) {
        curl_slist* longer = curl_slist_append(first, line.c_str());
        WV_ASSERT(longer != nullptr);
        first = longer;
    }
};

// What the callbacks of one attempt see.
struct Transfer {
    const S3Request& request;
    const std::atomic<bool>& cancelled;
    Connection& connection;
    // Waits until so many bytes, or fewer, may be sent, and returns how many.
    const std::function<std::uint64_t(std::uint64_t, bool is_bulk)>& pace;
    std::uint64_t sent_bytes = 0;
    std::optional<Error> unread = {};  // why the source did not give its bytes
    bool too_large = false;
    S3Answer answer = {};
};

std::size_t take_body(char* bytes, std::size_t, std::size_t count, void* context) {
    auto& transfer = *static_cast<Transfer*>(context);
    std::uint64_t most =
        transfer.answer.ok() ? transfer.request.answer_bytes_max : kRefusalBytesMax;
    if (count > most - std::min<std::uint64_t>(most, transfer.answer.body.size())) {
        transfer.too_large = true;
        return CURL_WRITEFUNC_ERROR;
    }
    append(transfer.answer.body, as_bytes({bytes, count}));
    return count;
}

int note_socket(void* context, curl_socket_t socket, curlsocktype) {
    static_cast<Connection*>(context)->socket = socket;
    return CURL_SOCKOPT_OK;
}

// Acknowledges what has arrived. A store that sends headers and body apart, without TCP_NODELAY, as
// Ceph's gateway does by default, waits with the body for an acknowledgement that the kernel delays
// by 40 ms, as long as the connection lives.
void acknowledge_now(const Connection& connection) {
    int yes = 1;
    // A socket that is closed by now is none that could be delayed.
    static_cast<void>(::setsockopt(connection.socket, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes));
}

std::size_t take_header(char* bytes, std::size_t, std::size_t count, void* context) {
    auto& transfer = *static_cast<Transfer*>(context);
    S3Answer& answer = transfer.answer;
    std::string_view line(bytes, count);
    if (line == "\r\n") {
        acknowledge_now(transfer.connection);
        auto size = parse_s3_number(answer.header("content-length"));
        if (size && answer.ok() && *size <= transfer.request.answer_bytes_max &&
            transfer.request.method != "HEAD")
            answer.body.reserve(*size);
    }
    // "100 Continue" comes before the answer, with a status line of its own.
    if (line.starts_with("HTTP/")) {
        answer.headers.clear();
        std::size_t blank = std::min(line.find(' '), line.size());
        answer.status = std::atoi(std::string(line.substr(blank)).c_str());
    }
    std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || count > kHeaderBytesMax) return count;
    std::string name(line.substr(0, colon));
    std::ranges::transform(name, name.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    });
    if (std::ranges::find(kKeptHeaders, name) == std::end(kKeptHeaders)) return count;
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && static_cast<unsigned char>(value.front()) <= ' ')
        value.remove_prefix(1);
    while (!value.empty() && static_cast<unsigned char>(value.back()) <= ' ')
        value.remove_suffix(1);
    answer.headers[name] = value;
    return count;
}

std::size_t give_body(char* into, std::size_t, std::size_t room, void* context) {
    auto& transfer = *static_cast<Transfer*>(context);
    const S3Request& request = transfer.request;
    std::size_t count = std::min<std::uint64_t>(room, request.body_bytes() - transfer.sent_bytes);
    if (count > 0 && transfer.pace) count = transfer.pace(count, request.is_bulk);
    if (count == 0) return 0;
    if (request.source) {
        auto read = fill_from(request.source, transfer.sent_bytes,
                              {reinterpret_cast<std::byte*>(into), count});
        if (!read) {
            transfer.unread = std::move(read).error();
            return CURL_READFUNC_ABORT;
        }
    } else {
        std::memcpy(into, request.body.data() + transfer.sent_bytes, count);
    }
    transfer.sent_bytes += count;
    return count;
}

bool is_small(const S3Request& request) {
    return !request.source && (request.method == "PUT" || request.method == "POST") &&
           !request.body.empty() && request.body.size() <= kSentWithHeadersMax;
}

void pace_small(const Transfer& transfer) {
    std::uint64_t left = transfer.request.body_bytes();
    while (transfer.pace && left > 0) {
        const std::uint64_t count = transfer.pace(left, transfer.request.is_bulk);
        if (count == 0) return;  // cancelled
        left -= count;
    }
}

int rewind_body(void* context, curl_off_t offset, int) {
    auto& transfer = *static_cast<Transfer*>(context);
    if (offset < 0 || static_cast<std::uint64_t>(offset) > transfer.request.body_bytes())
        return CURL_SEEKFUNC_FAIL;
    transfer.sent_bytes = static_cast<std::uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
}

int look_for_cancel(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<Transfer*>(context)->cancelled ? 1 : 0;
}

template <class T>
void set(CURL* easy, CURLoption option, T value) {
    CURLcode done = curl_easy_setopt(easy, option, value);
    WV_ASSERT(done == CURLE_OK);
}

void set_safety(CURL* easy) {
    set(easy, CURLOPT_NOSIGNAL, 1L);
    set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    set(easy, CURLOPT_FOLLOWLOCATION, 0L);
    set(easy, CURLOPT_PATH_AS_IS, 1L);
    set(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    set(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    set(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    set(easy, CURLOPT_BUFFERSIZE, 512L * 1024);
    set(easy, CURLOPT_UPLOAD_BUFFERSIZE, 1024L * 1024);
    set(easy, CURLOPT_USERAGENT, "walvault");
}

void set_times(CURL* easy, const S3Options& options, const S3Request& request) {
    std::uint64_t bytes = request.body_bytes() + request.answer_bytes_max;
    // The line, and what of it may be used, are shared by what is sent at once.
    const std::uint64_t line = options.bandwidth == 0
                                   ? kSlowestBytesPerSecond
                                   : std::min(kSlowestBytesPerSecond, options.bandwidth / 2);
    const std::uint64_t at_once = options.concurrency == 0 ? kUnlimitedAtOnce : options.concurrency;
    const std::uint64_t slowest = std::max<std::uint64_t>(1, line / at_once);
    auto whole = std::min<seconds>(kLongestRequest, kRequestTime + seconds(bytes / slowest));
    auto stall = request.stall_timeout.value_or(options.stall_timeout);
    set(easy, CURLOPT_CONNECTTIMEOUT, static_cast<long>(options.connect_timeout.count()));
    set(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(stall.count()));
    set(easy, CURLOPT_TIMEOUT, static_cast<long>(std::max(whole, stall).count()));
}

void set_body(CURL* easy, Transfer& transfer) {
    const S3Request& request = transfer.request;
    if (request.method == "HEAD") {
        set(easy, CURLOPT_NOBODY, 1L);
    } else if (is_small(request)) {
        set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
        set(easy, CURLOPT_POSTFIELDS, reinterpret_cast<const char*>(request.body.data()));
    } else if (request.method == "PUT" || request.method == "POST") {
        set(easy, CURLOPT_UPLOAD, 1L);
        set(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body_bytes()));
        set(easy, CURLOPT_READFUNCTION, &give_body);
        set(easy, CURLOPT_READDATA, static_cast<void*>(&transfer));
        set(easy, CURLOPT_SEEKFUNCTION, &rewind_body);
        set(easy, CURLOPT_SEEKDATA, static_cast<void*>(&transfer));
    }
    if (request.method != "HEAD") set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    set(easy, CURLOPT_WRITEFUNCTION, &take_body);
    set(easy, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_HEADERFUNCTION, &take_header);
    set(easy, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_SOCKOPTFUNCTION, &note_socket);
    set(easy, CURLOPT_SOCKOPTDATA, static_cast<void*>(&transfer.connection));
    set(easy, CURLOPT_NOPROGRESS, 0L);
    set(easy, CURLOPT_XFERINFOFUNCTION, &look_for_cancel);
    set(easy, CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
}

Error server_error(std::string message, std::string hint = {}) {
    return Error{Errc::unavailable, std::move(message), std::move(hint), Origin::server};
}

Error curl_error(CURLcode code, const char* detail, const S3Options& options) {
    std::string message = *detail != '\0' ? detail : curl_easy_strerror(code);
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return server_error(
            "the store's certificate is not trusted: " + message,
            options.ca_file.empty() ? "ca_file names the authority of a store of your own." : "");
    if (code == CURLE_SSL_CACERT_BADFILE)
        return server_error("ca_file " + options.ca_file + ": " + message);
    return server_error(message);
}

bool is_final(CURLcode code) {
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
           code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL;
}

// How an attempt ended: with an answer, or with an error, which may be worth another one.
struct Ending {
    Result<S3Answer> outcome;
    bool again = false;
    bool throttled = false;
    bool bad_credentials = false;
    seconds store_wants{0};
};

Ending judge(Transfer& transfer) {
    S3Answer& answer = transfer.answer;
    if (answer.ok()) {
        auto checked = transfer.request.check ? transfer.request.check(answer) : Result<>();
        if (checked) return {.outcome = std::move(answer)};
        Error error = std::move(checked).error();
        error.code = Errc::unavailable;
        return {.outcome = fail(std::move(error)), .again = true};
    }
    S3Failure failure = s3_failure(answer);
    // HEAD has no body to tell an expired token from a forbidden object.
    bool unexplained =
        transfer.request.method == "HEAD" && (answer.status == 400 || answer.status == 403);
    Ending ending{.outcome = answer,
                  .again = is_worth_another_try(failure),
                  .throttled = failure == S3Failure::throttled,
                  .bad_credentials = failure == S3Failure::expired ||
                                     failure == S3Failure::bad_key || unexplained};
    std::string wanted(answer.header("retry-after"));
    if (!wanted.empty())
        ending.store_wants =
            std::clamp(seconds(std::atoi(wanted.c_str())), seconds(0), seconds(30));
    return ending;
}

bool same(const S3Credentials& left, const S3Credentials& right) {
    return left.access_key == right.access_key &&
           std::ranges::equal(left.secret_key.view(), right.secret_key.view()) &&
           std::ranges::equal(left.session_token.view(), right.session_token.view());
}

}  // namespace

struct S3Client::State {
    FileSystem& files;
    S3Options options;
    S3Endpoint endpoint;
    std::atomic<bool> cancelled{false};
    std::atomic<std::uint64_t> requests{0};
    std::atomic<std::uint64_t> retries{0};
    std::atomic<std::uint64_t> throttled{0};
    std::mutex mutex;  // of what follows
    std::condition_variable woken;
    std::vector<std::unique_ptr<Connection>> idle;
    unsigned sending = 0;
    std::condition_variable sent;
    std::optional<RateLimit> rate;
    std::function<std::uint64_t(std::uint64_t, bool is_bulk)> pace;
    std::atomic<bool> wants_md5{false};
    std::shared_ptr<const S3Credentials> credentials;
    struct DayKey {
        std::string day;
        std::shared_ptr<const S3Credentials> of;
        SecretBytes key;
    };
    std::shared_ptr<const DayKey> day_key;
    std::mt19937_64 random{random_number()};

    std::unique_ptr<Connection> take_connection() {
        std::lock_guard lock(mutex);
        if (idle.empty()) return std::make_unique<Connection>();
        std::unique_ptr<Connection> connection = std::move(idle.back());
        idle.pop_back();
        return connection;
    }

    void give_back(std::unique_ptr<Connection> connection) {
        curl_easy_reset(connection->easy);  // what is connected stays so, and so do TLS sessions
        std::lock_guard lock(mutex);
        if (idle.size() < kIdleConnectionsMax) idle.push_back(std::move(connection));
    }

    void wait_for_turn() {
        std::unique_lock lock(mutex);
        sent.wait(lock, [this] {
            return options.concurrency == 0 || sending < options.concurrency || cancelled;
        });
        ++sending;
    }
    void end_turn() {
        std::lock_guard lock(mutex);
        --sending;
        sent.notify_one();
    }

    // 0 only when it is cancelled, which curl then learns otherwise.
    std::uint64_t wait_for_bandwidth(std::uint64_t bytes, bool is_bulk) {
        std::unique_lock lock(mutex);
        const std::uint64_t count = std::min(bytes, rate->piece_bytes());
        const auto now = steady_clock::now();
        const auto at = is_bulk ? rate->reserve(count, now) : rate->reserve_first(count, now);
        woken.wait_until(lock, at, [this] { return cancelled.load(); });
        return count;
    }

    Result<std::shared_ptr<const S3Credentials>> current_credentials() {
        std::lock_guard lock(mutex);
        if (credentials == nullptr) {
            WV_TRY(S3Credentials read, read_s3_credentials(files, options.credentials));
            credentials = std::make_shared<const S3Credentials>(std::move(read));
        }
        return credentials;
    }

    // Whether there are other ones by now than those that were refused.
    Result<bool> renew(const S3Credentials& refused) {
        std::lock_guard lock(mutex);
        if (!same(*credentials, refused)) return true;
        WV_TRY(S3Credentials read, read_s3_credentials(files, options.credentials));
        if (same(read, refused)) return false;
        credentials = std::make_shared<const S3Credentials>(std::move(read));
        return true;
    }

    std::shared_ptr<const DayKey> key_of_day(const std::shared_ptr<const S3Credentials>& key,
                                             const std::string& day) {
        std::lock_guard lock(mutex);
        if (day_key == nullptr || day_key->day != day || day_key->of != key)
            day_key = std::make_shared<const DayKey>(
                DayKey{day, key, s3_signing_key(key->secret_key, day, options.region)});
        return day_key;
    }

    // Of a body, computed once for all attempts.
    struct Digests {
        std::string sha256;
        std::string md5;  // empty: not sent
    };

    Result<Digests> digest(const S3Request& request) const {
        const std::uint64_t size = request.body_bytes();
        const bool with_md5 =
            size > 0 && (size <= kMd5BytesMax || wants_md5 || !options.object_lock.empty());
        BodyDigest digest(with_md5);
        if (!request.source) digest.update(request.body);
        ByteBuffer held(request.source ? std::min(kDigestedAtOnce, size) : 0);
        for (std::uint64_t at = 0; request.source && at < size; at += kDigestedAtOnce) {
            if (cancelled) return fail(Errc::cancelled, "stopped on request");
            const MutableByteSpan piece(held.data(), std::min(kDigestedAtOnce, size - at));
            WV_CHECK(fill_from(request.source, at, piece));
            digest.update(piece);
        }
        return Digests{digest.sha256_hex(), digest.md5_base64()};
    }

    void set_headers(HeaderLines& lines, const S3Request& request, const Digests& digests,
                     const std::shared_ptr<const S3Credentials>& key) {
        S3ToSign to_sign{.method = request.method,
                         .host = endpoint.host,
                         .path = endpoint.path_root + "/" + request.key,
                         .query = request.query,
                         .headers = request.headers,
                         .payload_sha256 = digests.sha256};
        if (!digests.md5.empty()) to_sign.headers.emplace_back("content-md5", digests.md5);
        const WallTime now = system_clock().now();
        const auto day = key_of_day(key, s3_day(now));
        S3Pairs added = s3_signature(to_sign, *key, day->key, options.region, now);
        lines.add("Host: " + endpoint.host);
        // Or curl says that a small body is a form.
        if (std::ranges::find(request.headers, "content-type", &S3Pairs::value_type::first) ==
            request.headers.end())
            lines.add("Content-Type:");
        for (const S3Pairs* pairs : {&to_sign.headers, &added})
            for (const auto& [name, value] : *pairs)
                lines.add(name + ": " + value);
    }

    Ending attempt(const S3Request& request, const Digests& digests,
                   const std::shared_ptr<const S3Credentials>& key) {
        std::unique_ptr<Connection> connection = take_connection();
        CURL* easy = connection->easy;
        Transfer transfer{
            .request = request, .cancelled = cancelled, .connection = *connection, .pace = pace};
        if (is_small(request)) pace_small(transfer);
        std::string query = s3_query(request.query);
        std::string url = endpoint.origin +
                          s3_encoded(endpoint.path_root + "/" + request.key, true) +
                          (query.empty() ? "" : "?" + query);
        HeaderLines lines;
        set_headers(lines, request, digests, key);
        std::array<char, CURL_ERROR_SIZE> detail{};
        set_safety(easy);
        set_times(easy, options, request);
        set_body(easy, transfer);
        set(easy, CURLOPT_URL, url.c_str());
        set(easy, CURLOPT_HTTPHEADER, lines.first);
        set(easy, CURLOPT_ERRORBUFFER, detail.data());
        if (!options.ca_file.empty()) set(easy, CURLOPT_CAINFO, options.ca_file.c_str());
        ++requests;
        CURLcode code = curl_easy_perform(easy);
        give_back(std::move(connection));
        if (cancelled) return {.outcome = fail(Errc::cancelled, "stopped on request")};
        if (transfer.unread) return {.outcome = fail(std::move(*transfer.unread))};
        if (code == CURLE_OK) return judge(transfer);
        if (transfer.too_large)
            return {
                .outcome = fail(server_error("the store's answer is longer than was asked for")),
                .again = true};
        return {.outcome = fail(curl_error(code, detail.data(), options)),
                .again = !is_final(code)};
    }

    // Waits at random, so that those who were turned away together do not come back together.
    // False: the time for attempts is over.
    bool wait_for_next(unsigned attempts, const Ending& ending,
                       steady_clock::time_point give_up_at) {
        std::unique_lock lock(mutex);
        milliseconds limit =
            std::min(kLongestWait, kFirstWait * (1 << std::min(attempts - 1, 10U)));
        std::uniform_int_distribution<milliseconds::rep> draw(0, limit.count());
        auto wait = std::max<milliseconds>(milliseconds(draw(random)), ending.store_wants);
        if (steady_clock::now() + wait > give_up_at) return false;
        woken.wait_for(lock, wait, [this] { return cancelled.load(); });
        return true;
    }
};

S3Client::S3Client(FileSystem& files, S3Options options, S3Endpoint endpoint)
    : state_(new State{
          .files = files, .options = std::move(options), .endpoint = std::move(endpoint)}) {
    require_curl();
    if (state_->options.bandwidth == 0) return;
    state_->rate.emplace(state_->options.bandwidth);
    state_->pace = [state = state_.get()](std::uint64_t bytes, bool is_bulk) {
        return state->wait_for_bandwidth(bytes, is_bulk);
    };
}
S3Client::~S3Client() = default;

Result<S3Answer> S3Client::perform(const S3Request& request) {
    if (!request.source || request.source_bytes > kSentWithHeadersMax)
        return attempt_until_done(request);
    WV_TRY(const ByteBuffer body, read_source(request.source, 0, request.source_bytes));
    S3Request whole = request;
    whole.source = {};
    whole.body = body;
    return attempt_until_done(whole);
}

Result<S3Answer> S3Client::attempt_until_done(const S3Request& request) {
    // From the first turn on: what is sent before it says nothing of the store.
    std::optional<steady_clock::time_point> give_up_at;
    bool renewed = false;
    WV_TRY(State::Digests digests, state_->digest(request));
    for (unsigned attempts = 1;; ++attempts) {
        if (state_->cancelled) return fail(Errc::cancelled, "stopped on request");
        WV_TRY(auto credentials, state_->current_credentials());
        if (request.is_bulk) state_->wait_for_turn();
        if (!give_up_at)
            give_up_at =
                steady_clock::now() + request.retry_for.value_or(state_->options.retry_for);
        Ending ending = state_->attempt(request, digests, credentials);
        if (request.is_bulk) state_->end_turn();
        if (ending.outcome) ending.outcome->attempts = attempts;
        state_->throttled += ending.throttled ? 1 : 0;
        if (ending.bad_credentials && !renewed) {
            renewed = true;
            WV_TRY(bool other, state_->renew(*credentials));
            if (other) continue;
        }
        if (ending.outcome && digests.md5.empty() && request.body_bytes() > 0 &&
            s3_failure(*ending.outcome) == S3Failure::bad_input) {
            state_->wants_md5 = true;
            WV_TRY(digests, state_->digest(request));
            continue;
        }
        if (!ending.again) return std::move(ending.outcome);
        Error error = ending.outcome ? s3_error(*ending.outcome) : ending.outcome.error();
        if (request.one_attempt || !state_->wait_for_next(attempts, ending, *give_up_at)) {
            if (attempts > 1 && !ending.outcome)
                error.message += ", at the last of " + std::to_string(attempts) + " attempts";
            return fail(std::move(error));
        }
        ++state_->retries;
        log::debug("s3.retry", "a request to the object store is tried again",
                   {{"request", request.method}, {"attempts", attempts}, {"error", error.message}});
    }
}

void S3Client::cancel() {
    std::lock_guard lock(state_->mutex);
    state_->cancelled = true;
    state_->woken.notify_all();
    state_->sent.notify_all();
}

S3Client::Counts S3Client::counts() const {
    return {state_->requests, state_->retries, state_->throttled};
}
const S3Options& S3Client::options() const { return state_->options; }

}  // namespace walvault::storage
