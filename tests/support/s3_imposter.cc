#include "tests/support/s3_imposter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "storage/s3_digest.h"
#include "storage/s3_signer.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kMetaStart = "x-amz-meta-";

std::string decoded(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::array<std::byte, 1> byte;
        if (text[at] == '%' && from_hex(text.substr(at + 1, 2), byte)) {
            out += as_text(byte);
            at += 2;
        } else {
            out += text[at];
        }
    }
    return out;
}

std::string lower(std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
}

ImposterRequest parse(std::string_view head) {
    ImposterRequest request;
    std::size_t line_end = head.find("\r\n");
    std::string_view first = head.substr(0, line_end);
    std::size_t blank = first.find(' ');
    request.method = first.substr(0, blank);
    std::string_view target = first.substr(blank + 1, first.rfind(' ') - blank - 1);
    std::size_t question = std::min(target.find('?'), target.size());
    std::string path = decoded(target.substr(1, question - 1));
    std::size_t slash = std::min(path.find('/'), path.size());
    request.bucket = path.substr(0, slash);
    request.key = path.substr(std::min(slash + 1, path.size()));
    std::string_view query = target.substr(std::min(question + 1, target.size()));
    while (!query.empty()) {
        std::size_t end = std::min(query.find('&'), query.size());
        std::size_t equals = std::min(query.find('='), end);
        request.query[decoded(query.substr(0, equals))] =
            decoded(query.substr(std::min(equals + 1, end), end - std::min(equals + 1, end)));
        query.remove_prefix(std::min(end + 1, query.size()));
    }
    head.remove_prefix(line_end + 2);
    while (!head.empty()) {
        std::size_t end = std::min(head.find("\r\n"), head.size());
        std::string_view line = head.substr(0, end);
        head.remove_prefix(std::min(end + 2, head.size()));
        std::size_t colon = line.find(": ");
        if (colon != std::string_view::npos)
            request.headers[lower(std::string(line.substr(0, colon)))] = line.substr(colon + 2);
    }
    return request;
}

bool send_all(int socket, std::string_view bytes) {
    while (!bytes.empty()) {
        ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

bool receive_more(int socket, std::string& into) {
    std::array<char, 65536> piece;
    ssize_t count = ::recv(socket, piece.data(), piece.size(), 0);
    if (count <= 0) return false;
    into.append(piece.data(), static_cast<std::size_t>(count));
    return true;
}

std::map<std::string, std::string> meta_of(const ImposterRequest& request) {
    std::map<std::string, std::string> meta;
    for (const auto& [name, value] : request.headers)
        if (name.starts_with(kMetaStart)) meta[name] = value;
    return meta;
}

std::string etag_line(const std::string& body) {
    return "ETag: \"" + sha256_hex(as_bytes(body)) + "\"\r\n";
}

std::string value_or(const std::map<std::string, std::string>& map, const std::string& name) {
    auto found = map.find(name);
    return found == map.end() ? std::string() : found->second;
}

}  // namespace

S3Imposter::S3Imposter() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    WV_ASSERT(::bind(listener_, any, size) == 0);
    WV_ASSERT(::listen(listener_, 64) == 0);
    WV_ASSERT(::getsockname(listener_, any, &size) == 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
}

S3Imposter::~S3Imposter() {
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
        for (int socket : sockets_)
            ::shutdown(socket, SHUT_RDWR);
    }
    ended_.notify_all();
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : threads_)
        thread.join();
    ::close(listener_);
}

void S3Imposter::accept_all() {
    for (;;) {
        int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (socket < 0) return;
        int yes = 1;
        ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        std::lock_guard lock(mutex_);
        sockets_.push_back(socket);
        threads_.emplace_back([this, socket] { serve(socket); });
        if (ending_) ::shutdown(socket, SHUT_RDWR);
    }
}

void S3Imposter::serve(int socket) {
    std::string buffered;
    while (answer_one(socket, buffered)) {
    }
    std::lock_guard lock(mutex_);
    sockets_.remove(socket);
    ::close(socket);
}

bool S3Imposter::answer_one(int socket, std::string& buffered) {
    std::size_t head_end;
    while ((head_end = buffered.find("\r\n\r\n")) == std::string::npos)
        if (!receive_more(socket, buffered)) return false;
    ImposterRequest request = parse(std::string_view(buffered).substr(0, head_end));
    buffered.erase(0, head_end + 4);
    std::string length = value_or(request.headers, "content-length");
    std::size_t body_bytes = length.empty() ? 0 : std::stoul(length);
    if (request.headers.contains("expect") && !send_all(socket, "HTTP/1.1 100 Continue\r\n\r\n"))
        return false;
    while (buffered.size() < body_bytes)
        if (!receive_more(socket, buffered)) return false;
    std::string body = buffered.substr(0, body_bytes);
    buffered.erase(0, body_bytes);

    ImposterFault fault;
    {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
        requests_.back().body = kept(body);
        request.body = std::move(body);
        if (chooser_) fault = chooser_(request);
    }
    if (fault.kind != ImposterFault::Kind::none) return send_faulty(socket, request, fault);
    return send_reply(socket, request, carry_out(request));
}

bool S3Imposter::send_faulty(int socket, const ImposterRequest& request,
                             const ImposterFault& fault) {
    using Kind = ImposterFault::Kind;
    if (fault.kind == Kind::close_before) return false;
    if (fault.kind == Kind::hang) {
        std::unique_lock lock(mutex_);
        ended_.wait(lock, [this] { return ending_; });
        return false;
    }
    if (fault.kind == Kind::answer) {
        Reply reply = refusal(fault.status, fault.code);
        reply.headers += fault.more_headers;
        return send_reply(socket, request, reply);
    }
    Reply reply = carry_out(request);
    if (fault.kind == Kind::carry_out_and_close) return false;
    if (fault.kind == Kind::cut_body) {
        send_reply(socket, request, reply, true);
        return false;
    }
    if (fault.kind == Kind::wrong_range) {
        std::size_t first = reply.headers.find("bytes ");
        if (first != std::string::npos) reply.headers.replace(first, 7, "bytes 1");
    }
    if (fault.kind == Kind::too_long) reply.body += std::string(1'000'000, 'x');
    if (fault.kind == Kind::no_xml) reply.body = "<html><p>maintenance</html>";
    return send_reply(socket, request, reply);
}

bool S3Imposter::send_reply(int socket, const ImposterRequest& request, const Reply& reply,
                            bool cut) {
    bool head = request.method == "HEAD";
    std::string length = head && !reply.object_bytes.empty() ? reply.object_bytes
                                                             : std::to_string(reply.body.size());
    std::string text = "HTTP/1.1 " + std::to_string(reply.status) + " Said\r\n" + reply.headers +
                       "Content-Length: " + length + "\r\n\r\n";
    if (!head) text += cut ? reply.body.substr(0, reply.body.size() / 2) : reply.body;
    return send_all(socket, text);
}

S3Imposter::Reply S3Imposter::refusal(int status, const std::string& code) {
    return {status, "Content-Type: application/xml\r\n",
            "<?xml version=\"1.0\"?><Error><Code>" + code +
                "</Code><Message>it says so</Message></Error>"};
}

S3Imposter::Reply S3Imposter::carry_out(const ImposterRequest& request) {
    std::lock_guard lock(mutex_);
    if (request.bucket != "bucket") return refusal(404, "NoSuchBucket");
    if (value_or(request.headers, "x-amz-content-sha256") != sha256_hex(as_bytes(request.body)))
        return refusal(400, "XAmzContentSHA256Mismatch");
    if (request.headers.contains("content-md5")) {
        if (request.headers.at("content-md5") != md5_base64(as_bytes(request.body)))
            return refusal(400, "BadDigest");
    } else if (wants_md5_ && !request.body.empty()) {
        return refusal(400, "InvalidRequest");
    }
    const bool knows_locks = object_lock_ != ObjectLock::unknown;
    if (knows_locks && request.has("object-lock")) return tell_object_lock();
    if (knows_locks && request.has("retention")) return {};
    if (request.method == "GET" && request.key.empty())
        return request.has("uploads") ? list_uploads(request) : list_objects(request);
    if (request.method == "GET" || request.method == "HEAD") return get_object(request);
    if (request.method == "POST")
        return request.has("restore")   ? restore_object(request)
               : request.has("uploads") ? begin_upload(request)
                                        : complete_upload(request);
    if (request.method == "PUT")
        return request.has("uploadId") ? put_part(request) : put_object(request);
    if (request.has("uploadId")) {
        bool was = uploads_.erase(request.query.at("uploadId")) > 0;
        return was ? Reply{.status = 204} : refusal(404, "NoSuchUpload");
    }
    objects_.erase(request.key);
    return {.status = 204};
}

std::string S3Imposter::kept(const std::string& body) const {
    return body.size() > kept_bytes_ ? std::string() : body;
}

S3Imposter::Reply S3Imposter::tell_object_lock() const {
    if (object_lock_ == ObjectLock::absent)
        return refusal(404, "ObjectLockConfigurationNotFoundError");
    return {.body =
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
                "</ObjectLockConfiguration>"};
}

S3Imposter::Reply S3Imposter::put_object(const ImposterRequest& request) {
    if (create_only_ && request.headers.contains("if-none-match") && objects_.contains(request.key))
        return refusal(412, "PreconditionFailed");
    objects_[request.key] = {kept(request.body), meta_of(request),
                             value_or(request.headers, "x-amz-storage-class")};
    return {200, etag_line(request.body), ""};
}

std::int64_t S3Imposter::now() const {
    auto since = std::chrono::system_clock::now().time_since_epoch() + ahead_;
    return std::chrono::duration_cast<std::chrono::seconds>(since).count();
}

// As S3: a copy that has gone leaves the object as archived as it was.
bool S3Imposter::is_readable(Object& object) {
    const bool archived =
        object.storage_class == "GLACIER" || object.storage_class == "DEEP_ARCHIVE";
    if (!archived || thaw_time_.count() < 0) return true;
    if (object.thawed_until != 0 && now() >= object.thawed_until)
        object.thawed_at = object.thawed_until = 0;
    return object.thawed_at != 0 && now() >= object.thawed_at;
}

std::string S3Imposter::class_lines(Object& object) {
    if (object.storage_class.empty()) return {};
    std::string lines = "x-amz-storage-class: " + object.storage_class + "\r\n";
    if (object.thawed_at == 0) return lines;
    if (now() < object.thawed_at) return lines + "x-amz-restore: ongoing-request=\"true\"\r\n";
    std::time_t until = object.thawed_until;
    char date[64];
    std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", std::gmtime(&until));
    return lines + "x-amz-restore: ongoing-request=\"false\", expiry-date=\"" + date + "\"\r\n";
}

S3Imposter::Reply S3Imposter::restore_object(const ImposterRequest& request) {
    auto found = objects_.find(request.key);
    if (found == objects_.end()) return refusal(404, "NoSuchKey");
    if (thaw_time_.count() < 0) return refusal(501, "NotImplemented");
    Object& object = found->second;
    const std::size_t days_at = request.body.find("<Days>");
    if (days_at == std::string::npos || request.body.find("<Tier>") == std::string::npos)
        return refusal(400, "MalformedXML");
    const std::int64_t days = std::stoll(request.body.substr(days_at + 6));
    const bool is_thawed = is_readable(object);
    if (is_thawed && object.thawed_at == 0) return refusal(403, "InvalidObjectState");
    if (!is_thawed && object.thawed_at != 0) return refusal(409, "RestoreAlreadyInProgress");
    if (is_thawed) {
        object.thawed_until = now() + days * 86400;
        return {.status = 200};
    }
    ++retrievals_[request.key];
    object.thawed_at = now() + std::max<std::int64_t>(thaw_time_.count(), 1);
    object.thawed_until = object.thawed_at + days * 86400;
    return {.status = 202};
}

S3Imposter::Reply S3Imposter::get_object(const ImposterRequest& request) {
    auto found = objects_.find(request.key);
    if (found == objects_.end()) return refusal(404, "NoSuchKey");
    const std::string& body = found->second.body;
    if (request.method == "HEAD") ahead_ += tick_;
    const bool readable = is_readable(found->second);
    if (request.method == "GET" && !readable) return refusal(403, "InvalidObjectState");
    Reply reply{200, etag_line(body) + class_lines(found->second), ""};
    for (const auto& [name, value] : found->second.meta)
        reply.headers += name + ": " + value + "\r\n";
    if (request.method == "HEAD") {
        reply.object_bytes = std::to_string(body.size());
        return reply;
    }
    std::string range = value_or(request.headers, "range");
    if (range.empty()) {
        reply.body = body;
        return reply;
    }
    std::size_t first = std::stoull(range.substr(6));
    std::size_t last = std::stoull(range.substr(range.find('-') + 1));
    if (first >= body.size()) return refusal(416, "InvalidRange");
    last = std::min(last, body.size() - 1);
    reply.status = 206;
    reply.headers += "Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) +
                     "/" + std::to_string(body.size()) + "\r\n";
    reply.body = body.substr(first, last - first + 1);
    return reply;
}

// As S3: in order of bytes, keys encoded, the token a key to go on behind.
S3Imposter::Reply S3Imposter::list_objects(const ImposterRequest& request) {
    std::string prefix = value_or(request.query, "prefix");
    std::string from = decoded(value_or(request.query, "continuation-token"));
    std::string body = "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>";
    std::size_t count = 0;
    std::string last;
    bool more = false;
    for (auto at = objects_.upper_bound(from); at != objects_.end(); ++at) {
        if (!at->first.starts_with(prefix)) continue;
        if (count == page_keys_) {
            more = true;
            break;
        }
        ++count;
        last = at->first;
        std::string key = s3_encoded(last, true);
        for (std::size_t blank; (blank = key.find("%20")) != std::string::npos;)
            key.replace(blank, 3, "+");
        body += "<Contents><Key>" + key + "</Key><Size>" + std::to_string(at->second.body.size()) +
                "</Size><StorageClass>" +
                (at->second.storage_class.empty() ? "STANDARD" : at->second.storage_class) +
                "</StorageClass></Contents>";
    }
    body += std::string("<IsTruncated>") + (more ? "true" : "false") + "</IsTruncated>";
    if (more)
        body += "<NextContinuationToken>" + s3_encoded(last, false) + "</NextContinuationToken>";
    return {200, "Content-Type: application/xml\r\n", body + "</ListBucketResult>"};
}

S3Imposter::Reply S3Imposter::list_uploads(const ImposterRequest& request) {
    std::string prefix = value_or(request.query, "prefix");
    std::string body = "<?xml version=\"1.0\"?><ListMultipartUploadsResult>";
    for (const auto& [id, upload] : uploads_)
        if (upload.key.starts_with(prefix))
            body += "<Upload><Key>" + upload.key + "</Key><UploadId>" + id + "</UploadId></Upload>";
    body += "<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
    return {200, "Content-Type: application/xml\r\n", body};
}

S3Imposter::Reply S3Imposter::begin_upload(const ImposterRequest& request) {
    std::string id = "upload " + std::to_string(requests_.size()) + "/+";
    uploads_[id] = {
        request.key, meta_of(request), {}, value_or(request.headers, "x-amz-storage-class")};
    return {200, "",
            "<InitiateMultipartUploadResult><UploadId>" + id +
                "</UploadId></InitiateMultipartUploadResult>"};
}

S3Imposter::Reply S3Imposter::put_part(const ImposterRequest& request) {
    auto found = uploads_.find(request.query.at("uploadId"));
    if (found == uploads_.end()) return refusal(404, "NoSuchUpload");
    found->second.parts[std::stoi(request.query.at("partNumber"))] = kept(request.body);
    return {200, etag_line(request.body), ""};
}

S3Imposter::Reply S3Imposter::complete_upload(const ImposterRequest& request) {
    auto found = uploads_.find(value_or(request.query, "uploadId"));
    if (found == uploads_.end()) return refusal(404, "NoSuchUpload");
    Upload& upload = found->second;
    if (create_only_in_parts_ && request.headers.contains("if-none-match") &&
        objects_.contains(upload.key))
        return refusal(412, "PreconditionFailed");
    std::string whole;
    for (const auto& [number, body] : upload.parts) {
        if (body.empty() && kept_bytes_ < ~std::size_t{0}) continue;
        std::string tag = sha256_hex(as_bytes(body));
        bool last = number == upload.parts.rbegin()->first;
        if (request.body.find(tag) == std::string::npos) return refusal(400, "InvalidPart");
        if (!last && body.size() < (5 << 20)) return refusal(400, "EntityTooSmall");
        whole += body;
    }
    objects_[upload.key] = {whole, upload.meta, upload.storage_class};
    uploads_.erase(found);
    return {200, "",
            "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"};
}

void S3Imposter::set_faults(Chooser chooser) {
    std::lock_guard lock(mutex_);
    chooser_ = std::move(chooser);
}
void S3Imposter::set_create_only(bool whole, bool in_parts) {
    std::lock_guard lock(mutex_);
    create_only_ = whole;
    create_only_in_parts_ = in_parts;
}
void S3Imposter::set_object_lock(ObjectLock lock) {
    std::lock_guard guard(mutex_);
    object_lock_ = lock;
}
void S3Imposter::set_wants_md5(bool wants) {
    std::lock_guard lock(mutex_);
    wants_md5_ = wants;
}
void S3Imposter::set_kept_bytes(std::size_t most) {
    std::lock_guard lock(mutex_);
    kept_bytes_ = most;
}
void S3Imposter::set_page_keys(std::size_t count) {
    std::lock_guard lock(mutex_);
    page_keys_ = count;
}
std::vector<ImposterRequest> S3Imposter::requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
}
std::size_t S3Imposter::count(const std::string& method) const {
    std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::ranges::count(requests_, method, &ImposterRequest::method));
}
std::map<std::string, std::string> S3Imposter::objects() const {
    std::lock_guard lock(mutex_);
    std::map<std::string, std::string> bodies;
    for (const auto& [key, object] : objects_)
        bodies[key] = object.body;
    return bodies;
}
std::size_t S3Imposter::open_uploads() const {
    std::lock_guard lock(mutex_);
    return uploads_.size();
}
void S3Imposter::move_to_class(const std::string& prefix, const std::string& storage_class) {
    std::lock_guard lock(mutex_);
    for (auto& [key, object] : objects_)
        if (key.starts_with(prefix)) object.storage_class = storage_class;
}
void S3Imposter::set_thaw_time(std::chrono::seconds time) {
    std::lock_guard lock(mutex_);
    thaw_time_ = time;
}
void S3Imposter::advance(std::chrono::seconds time) {
    std::lock_guard lock(mutex_);
    ahead_ += time;
}
void S3Imposter::set_tick(std::chrono::seconds tick) {
    std::lock_guard lock(mutex_);
    tick_ = tick;
}
std::map<std::string, int> S3Imposter::retrievals() const {
    std::lock_guard lock(mutex_);
    return retrievals_;
}
void S3Imposter::place(const std::string& key, const std::string& body) {
    std::lock_guard lock(mutex_);
    objects_[key] = {body, {}};
}

}  // namespace walvault::storage
