#include "storage/s3_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>

#include "base/log.h"
#include "storage/object_name.h"
#include "storage/s3_archive.h"
#include "storage/s3_lock.h"
#include "storage/s3_upload.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kKeyBytesMax = 1024;
constexpr std::uint64_t kPageBytesMax = 16_MiB;
// So little waits for no turn.
constexpr std::uint64_t kSmallRangeBytes = 64_KiB;
// About 2 GiB of names.
constexpr std::size_t kListedMax = 10'000'000;
// Larger than any object, and small enough for every store's arithmetic.
constexpr std::uint64_t kOffsetMax = std::uint64_t{1} << 60;
// Times that an object in parts is sent where its completion stays open.
constexpr int kUploadsMax = 3;
// Whose put made an object: one number for each call of put(), the same in all its attempts.
constexpr std::string_view kPutHeader = "x-amz-meta-walvault-put";
const S3Pairs kCreateOnly = {{"if-none-match", "*"}};
// Between two looks for uploads that could not be aborted.
constexpr std::chrono::seconds kSweepInterval{30};

struct Found {
    std::uint64_t size_bytes = 0;
    std::string put_id;
    std::string version;
    S3Lock lock;
    std::string tag_count;
};

// What the pieces of tails and leases are not: there to stay.
bool is_lasting(std::string_view name) {
    return name.find(".tail") == std::string_view::npos && !name.starts_with("lease/");
}

const std::string& storage_class_of(const S3Options& options, std::string_view name) {
    static const std::string kBuckets;
    if (!name.ends_with(".pack") || name.ends_with(".manifest.pack")) return kBuckets;
    const std::string_view kind = name.substr(std::min(name.find('/'), name.size()));
    const std::string& own = kind.starts_with("/wal/")    ? options.storage_class_wal
                             : kind.starts_with("/base/") ? options.storage_class_base
                                                          : kBuckets;
    return own.empty() ? options.storage_class : own;
}

class BucketStore final : public S3Store, public ArchiveStore {
public:
    BucketStore(FileSystem& files, S3Options options, S3Endpoint endpoint)
        : root_(options.prefix.empty() ? "" : options.prefix + "/"),
          url_("s3://" + options.bucket + (options.prefix.empty() ? "" : "/" + options.prefix)),
          client_(files, std::move(options), std::move(endpoint)),
          archive_(client_) {}

    Result<> put(const std::string& name, ByteSpan bytes) override {
        WV_TRY(std::string key, key_of(name));
        const S3Request whole{.method = "PUT", .key = key, .body = bytes};
        return named("put", name, put_key(whole, name, source_of(bytes)));
    }

    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        WV_TRY(std::string key, key_of(name));
        S3Request whole{.method = "PUT", .key = key, .is_bulk = true};
        ByteBuffer held;
        if (source.is_far() && !in_parts(size_bytes, source)) {
            auto read = read_source(source, 0, size_bytes);
            if (!read) return named("put", name, Result<>(fail(std::move(read).error())));
            held = std::move(*read);
            whole.body = held;
        } else {
            whole.source = source;
            whole.source_bytes = size_bytes;
        }
        return named("put", name, put_key(whole, name, source));
    }

    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        WV_TRY(std::string key, key_of(name));
        auto bytes = named("get", name, get_range(key, offset, length));
        if (bytes)
            read_bytes_ += bytes->size();
        else if (bytes.error().code == Errc::archived)
            note_refused(name);
        else if (bytes.error().code != Errc::not_found)
            ++read_errors_;
        return bytes;
    }

    Result<ObjectInfo> info(const std::string& name) override {
        WV_TRY(std::string key, key_of(name));
        WV_TRY(Found found, named("look for", name, head(key)));
        return ObjectInfo{name, found.size_bytes};
    }

    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        WV_CHECK(check_object_prefix(prefix));
        return named("list", prefix, list_pages(prefix));
    }

    Result<> remove(const std::string& name) override {
        WV_TRY(std::string key, key_of(name));
        WV_TRY(Found found, named("remove", name, head(key)));
        if (is_locked(found.lock))
            return named("remove", name, Result<>(fail(s3_locked_error(found.lock))));
        return named("remove", name, remove_found(key, found));
    }

    Result<> sweep() override {
        const auto now = std::chrono::steady_clock::now();
        if (!may_have_uploads_ || now < sweep_at_.load()) return {};
        sweep_at_ = now + kSweepInterval;
        may_have_uploads_ = false;
        auto swept = abort_uploads();
        if (!swept) may_have_uploads_ = true;
        return named("look for unfinished uploads below", "", std::move(swept));
    }

    std::string url() const override { return url_; }
    Reads reads() const override { return {read_bytes_, read_errors_}; }
    ArchiveStore* archive() override { return this; }
    void cancel() override { client_.cancel(); }
    S3Client::Counts counts() const override { return client_.counts(); }

    Result<ArchiveState> archive_state(const std::string& name) override {
        WV_TRY(std::string key, key_of(name));
        return named("look for", name, archive_.state(key));
    }

    Result<ThawAnswer> request_thaw(const std::string& name, const ThawRequest& request) override {
        WV_TRY(std::string key, key_of(name));
        return named("thaw", name, archive_.thaw(key, request));
    }

    std::string last_refused() const override {
        std::lock_guard lock(refused_mutex_);
        return last_refused_;
    }

    Result<bool> honours_create_only(std::uint64_t size_bytes) override {
        return honours(in_parts(size_bytes, {}));
    }

private:
    Result<bool> honours(bool parts) {
        // Whoever comes meanwhile waits: it is asked once.
        std::lock_guard lock(mutex_);
        std::optional<bool>& known = parts ? honoured_in_parts_ : honoured_;
        if (!known) {
            auto proved = prove_create_only(parts);
            if (!proved)
                return fail_while("ask " + url_ + " whether names can be written once",
                                  std::move(proved).error());
            known = *proved;
            log::info(
                "s3.create_only",
                *known ? "the store refuses names that exist"
                       : "the store does not refuse names that exist: it is asked before each put",
                {{"store", url_}, {"in_parts", parts ? "yes" : "no"}});
        }
        return *known;
    }

    bool is_to_be_locked(std::string_view name) const {
        return !client_.options().object_lock.empty() && is_lasting(name);
    }

    Result<> require_locks() {
        if (has_locks_) return {};
        WV_CHECK(check_bucket_locks(client_));
        has_locks_ = true;
        return {};
    }

    void note_refused(const std::string& name) {
        std::lock_guard lock(refused_mutex_);
        last_refused_ = name;
    }

    bool in_parts(std::uint64_t size_bytes, const ObjectSource& source) const {
        const S3Options& options = client_.options();
        return size_bytes > (source.is_far()
                                 ? std::min(options.multipart_above_bytes, options.part_bytes)
                                 : options.multipart_above_bytes);
    }

    Result<std::string> key_of(const std::string& name) const {
        WV_CHECK(check_object_name(name));
        std::string key = root_ + name;
        if (key.size() <= kKeyBytesMax) return key;
        return fail(Errc::invalid_argument,
                    "with the prefix of " + url_ + " the name has " + std::to_string(key.size()) +
                        " bytes, more than the " + std::to_string(kKeyBytesMax) + " of S3");
    }

    template <class T>
    Result<T> named(const char* doing, const std::string& name, Result<T> outcome) const {
        if (outcome) return outcome;
        return fail_while(std::string(doing) + " " + url_ + "/" + name, std::move(outcome).error());
    }

    S3Pairs object_headers(const std::string& put_id, std::string_view name) const {
        const S3Options& options = client_.options();
        S3Pairs headers = {{"content-type", "application/octet-stream"},
                           {std::string(kPutHeader), put_id}};
        const std::string& storage_class = storage_class_of(options, name);
        if (!storage_class.empty()) headers.emplace_back("x-amz-storage-class", storage_class);
        add_encryption(headers, options.sse);
        if (!options.tags.empty()) headers.emplace_back("x-amz-tagging", s3_query(options.tags));
        if (is_to_be_locked(name)) {
            std::string until = to_utc_text(system_clock().now() + options.object_lock_for);
            until.resize(until.find('.'));
            headers.emplace_back("x-amz-object-lock-mode", options.object_lock);
            headers.emplace_back("x-amz-object-lock-retain-until-date", until + "Z");
        }
        return headers;
    }

    static void add_encryption(S3Pairs& headers, std::string_view sse) {
        if (sse.empty()) return;
        constexpr std::string_view kWithKey = "aws:kms:";
        const bool has_key = sse.starts_with(kWithKey);
        headers.emplace_back("x-amz-server-side-encryption", has_key ? "aws:kms" : sse);
        if (has_key)
            headers.emplace_back("x-amz-server-side-encryption-aws-kms-key-id",
                                 sse.substr(kWithKey.size()));
    }

    // By the request `whole`, to which the headers are added, or in parts of `source`.
    Result<> put_key(S3Request whole, const std::string& name, const ObjectSource& source) {
        const std::string key = whole.key;
        const std::uint64_t size_bytes = whole.body_bytes();
        bool parts = in_parts(size_bytes, source);
        if (is_to_be_locked(name)) WV_CHECK(require_locks());
        WV_TRY(bool create_only, honours(parts));
        // Also before many parts are sent for nothing.
        if (!create_only || parts) WV_CHECK(refuse_existing(key, create_only));
        std::string put_id = to_hex(random_id16());
        S3Pairs headers = object_headers(put_id, name);
        if (!parts) {
            if (create_only) headers.insert(headers.end(), kCreateOnly.begin(), kCreateOnly.end());
            whole.headers = std::move(headers);
            return settle(key, put_id, size_bytes, client_.perform(whole));
        }
        for (int left = kUploadsMax;; --left) {
            S3Uploaded uploaded = upload_in_parts(client_, key, size_bytes, source, headers,
                                                  create_only ? kCreateOnly : S3Pairs{});
            if (uploaded.left) may_have_uploads_ = true;
            auto settled = settle(key, put_id, size_bytes, uploaded.answer, uploaded.at_completion);
            if (settled) return complete_meta(key, headers);
            if (left == 1 || !uploaded.at_completion) return settled;
        }
    }

    // Ceph's gateway takes lock and tags of what is put in parts, and forgets them.
    Result<> complete_meta(const std::string& key, const S3Pairs& headers) {
        const auto mode =
            std::ranges::find(headers, "x-amz-object-lock-mode", &S3Pairs::value_type::first);
        const S3Pairs& tags = client_.options().tags;
        if (mode == headers.end() && tags.empty()) return {};
        WV_TRY(Found found, head(key));
        if (mode != headers.end() && found.lock.until.empty()) {
            const std::string& until = (mode + 1)->second;
            WV_CHECK(put_meta(key, found, "retention", s3_retention(mode->second, until)));
        }
        if (!tags.empty() && found.tag_count != std::to_string(tags.size()))
            WV_CHECK(put_meta(key, found, "tagging", s3_tagging(tags)));
        return {};
    }

    Result<> put_meta(const std::string& key, const Found& found, const char* what,
                      const std::string& body) {
        S3Request request{
            .method = "PUT", .key = key, .query = {{what, ""}}, .body = as_bytes(body)};
        if (!found.version.empty()) request.query.emplace_back("versionId", found.version);
        WV_TRY(S3Answer answer, client_.perform(request));
        if (answer.ok()) return {};
        return fail_while(std::string("set the ") + what + " of it", s3_error(answer));
    }

    // What became of a put. An attempt whose answer was lost may have made the object, and the next
    // one been refused for it. Where the store did not answer for long, it is asked once only,
    // unless `patiently`.
    Result<> settle(const std::string& key, const std::string& put_id, std::uint64_t size_bytes,
                    const Result<S3Answer>& answer, bool patiently = false) {
        if (answer && answer->ok()) return {};
        if (!answer && answer.error().code == Errc::cancelled) return fail(answer.error());
        auto found = head(key, !answer && !patiently);
        if (found && found->put_id == put_id && found->size_bytes == size_bytes) return {};
        if (found && (!answer || s3_failure(*answer) == S3Failure::exists)) return fail(exists());
        if (!answer) return fail(answer.error());
        return fail(s3_error(*answer));
    }

    static Error exists() {
        return Error{Errc::refused, "it exists; a name is written once", {}, Origin::server};
    }

    // Where the store refuses it as well, what HEAD says is enough to try.
    Result<> refuse_existing(const std::string& key, bool store_refuses) {
        if (store_refuses) {
            WV_TRY(S3Answer answer, client_.perform({.method = "HEAD", .key = key}));
            if (answer.status == 404) return {};
        }
        auto found = head(key);
        if (found) return fail(exists());
        if (found.error().code != Errc::not_found) return fail(std::move(found).error());
        return {};
    }

    // A HEAD that fails has no body to say why, and 404 may be the bucket: a GET of one byte says
    // it.
    Result<Found> head(const std::string& key, bool one_attempt = false) {
        for (int round = 0; round < 2; ++round) {
            WV_TRY(S3Answer answer,
                   client_.perform({.method = "HEAD", .key = key, .one_attempt = one_attempt}));
            if (answer.ok()) {
                WV_TRY(std::uint64_t size, parse_s3_number(answer.header("content-length")));
                return found_in(answer, size);
            }
            WV_TRY(S3Answer reason, client_.perform({.method = "GET",
                                                     .key = key,
                                                     .headers = {{"range", "bytes=0-0"}},
                                                     .one_attempt = one_attempt}));
            // It has come between the two: once more.
            if (!reason.ok() && s3_failure(reason) != S3Failure::beyond_end)
                return fail(s3_error(reason));
        }
        return fail(Error{Errc::unavailable,
                          "the store says by turns that it is there and that it is not",
                          {},
                          Origin::server});
    }

    static Found found_in(const S3Answer& answer, std::uint64_t size_bytes) {
        const auto text = [&answer](std::string_view name) {
            return std::string(answer.header(std::string(name)));
        };
        return {.size_bytes = size_bytes,
                .put_id = text(kPutHeader),
                .version = text("x-amz-version-id"),
                .lock = s3_lock_in(answer),
                .tag_count = text("x-amz-tagging-count")};
    }

    Result<ByteBuffer> get_range(const std::string& key, std::uint64_t offset,
                                 std::uint64_t length) {
        if (length == 0 || offset > kOffsetMax) return nothing_beyond(key, offset, length);
        std::uint64_t last = offset + std::min(length, kOffsetMax) - 1;
        S3Request request{
            .method = "GET",
            .key = key,
            .headers = {{"range", "bytes=" + std::to_string(offset) + "-" + std::to_string(last)}},
            .is_bulk = length > kSmallRangeBytes,
            .answer_bytes_max = length,
            .check = [offset, last](const S3Answer& answer) {
                return check_range(answer, offset, last);
            }};
        WV_TRY(S3Answer answer, client_.perform(request));
        if (answer.ok()) return std::move(answer.body);
        if (s3_failure(answer) == S3Failure::beyond_end) return nothing_beyond(key, offset, length);
        return fail(s3_error(answer));
    }

    // That an object ends before `offset` is looked up, not concluded.
    Result<ByteBuffer> nothing_beyond(const std::string& key, std::uint64_t offset,
                                      std::uint64_t length) {
        WV_TRY(Found found, head(key));
        if (length == 0 || found.size_bytes <= offset) return ByteBuffer{};
        return fail(Error{Errc::unavailable,
                          "the store has no bytes from " + std::to_string(offset) +
                              " of an object of " + std::to_string(found.size_bytes),
                          {},
                          Origin::server});
    }

    // The bytes are just those that were asked for, as far as the object goes.
    static Result<> check_range(const S3Answer& answer, std::uint64_t offset, std::uint64_t last) {
        if (answer.status == 200 && offset == 0 && answer.header("content-range").empty()) {
            // The whole object, where that was asked for: a store may leave the range out.
            WV_TRY(std::uint64_t size, parse_s3_number(answer.header("content-length")));
            if (size == answer.body.size() && size <= last + 1) return {};
        }
        WV_TRY(S3Range range, parse_s3_range(answer.header("content-range")));
        bool right = answer.status == 206 && range.first == offset &&
                     range.last == std::min(last, range.size - 1) &&
                     answer.body.size() == range.last - range.first + 1;
        if (right) return {};
        return fail(Error{Errc::unavailable,
                          "the store answered " + std::to_string(answer.body.size()) +
                              " bytes as " + std::to_string(range.first) + " to " +
                              std::to_string(range.last) + " of " + std::to_string(range.size) +
                              " where " + std::to_string(offset) + " to " + std::to_string(last) +
                              " were asked for",
                          {},
                          Origin::server});
    }

    Result<std::vector<ObjectInfo>> list_pages(const std::string& prefix) {
        std::vector<ObjectInfo> objects;
        std::string from;
        do {
            S3Page page;
            S3Request request{
                .method = "GET",
                .query = {{"encoding-type", "url"}, {"list-type", "2"}, {"prefix", root_ + prefix}},
                .answer_bytes_max = kPageBytesMax,
                .check = [&page](const S3Answer& answer) -> Result<> {
                    WV_TRY(page, parse_s3_page(answer.body));
                    return {};
                }};
            if (!from.empty()) request.query.emplace_back("continuation-token", from);
            WV_TRY(S3Answer answer, client_.perform(request));
            if (!answer.ok()) return fail(s3_error(answer));
            WV_CHECK(take_page(page, prefix, objects));
            if (!page.next.empty() && page.next == from)
                return fail(Errc::io, "the store lists one page for ever");
            from = std::move(page.next);
        } while (!from.empty());
        std::ranges::sort(objects, {}, &ObjectInfo::name);
        return objects;
    }

    Result<> take_page(const S3Page& page, const std::string& prefix,
                       std::vector<ObjectInfo>& objects) const {
        for (const S3Page::Entry& entry : page.entries) {
            if (!entry.key.starts_with(root_ + prefix))
                return fail(Error{Errc::io,
                                  "the store lists what does not begin with the prefix",
                                  {},
                                  Origin::server});
            std::string name = entry.key.substr(root_.size());
            if (!is_object_name(name)) continue;
            if (objects.size() == kListedMax)
                return fail(Errc::io,
                            "there are more than " + std::to_string(kListedMax) + " objects");
            objects.push_back({std::move(name), entry.size_bytes, entry.storage_class});
        }
        return {};
    }

    // Without its version, a bucket that keeps versions would hide it and keep it. Where nothing is
    // locked that is what its owner wants.
    Result<> remove_found(const std::string& key, const Found& found) {
        const bool by_version =
            !found.version.empty() && found.version != "null" &&
            (!found.lock.until.empty() || !client_.options().object_lock.empty());
        S3Pairs query;
        if (by_version) query.emplace_back("versionId", found.version);
        return remove_key(key, query);
    }

    Result<> remove_key(const std::string& key, const S3Pairs& query = {}) {
        WV_TRY(S3Answer answer, client_.perform({.method = "DELETE", .key = key, .query = query}));
        if (answer.ok() || s3_failure(answer) == S3Failure::absent) return {};
        if (s3_failure(answer) == S3Failure::forbidden)
            if (auto now = head(key); now && is_locked(now->lock))
                return fail(s3_locked_error(now->lock));
        return fail(s3_error(answer));
    }

    // Without an encoding: Ceph's gateway obeys it here and does not say so, and no key of ours
    // needs it.
    Result<> abort_uploads() {
        S3Uploads page;
        do {
            S3Request request{.method = "GET",
                              .query = {{"prefix", root_}, {"uploads", ""}},
                              .answer_bytes_max = kPageBytesMax};
            if (!page.next_key.empty()) {
                request.query.emplace_back("key-marker", page.next_key);
                if (!page.next_id.empty())
                    request.query.emplace_back("upload-id-marker", page.next_id);
            }
            request.check = [&page](const S3Answer& answer) -> Result<> {
                WV_TRY(page, parse_s3_uploads(answer.body));
                return {};
            };
            WV_TRY(S3Answer answer, client_.perform(request));
            if (!answer.ok()) return fail(s3_error(answer));
            for (const S3Uploads::Entry& upload : page.entries) {
                if (!upload.key.starts_with(root_)) continue;
                WV_CHECK(abort_upload(client_, upload.key, upload.id));
                log::info("s3.upload_aborted", "an upload that a put left unfinished was aborted",
                          {{"object", "s3://" + client_.options().bucket + "/" + upload.key}});
            }
        } while (!page.next_key.empty());
        return {};
    }

    // Twice under a name of its own, hidden from lists. Whatever a store answers that does not know
    // the condition, it is not 412.
    Result<bool> prove_create_only(bool parts) {
        std::string key = root_ + ".probe-" + to_hex(random_id16());
        // Of a name that no lock is for.
        S3Pairs headers = object_headers(to_hex(random_id16()), "lease/");
        S3Pairs conditional = headers;
        conditional.insert(conditional.end(), kCreateOnly.begin(), kCreateOnly.end());
        WV_TRY(bool first_refused,
               is_refused(client_.perform({.method = "PUT",
                                           .key = key,
                                           .headers = parts ? headers : conditional,
                                           .body = as_bytes("1")})));
        // The name is nobody else's: refused at once, it was an attempt of ours whose answer was
        // lost.
        Result<bool> refused = first_refused;
        if (!first_refused)
            refused = is_refused(parts ? upload_probe(key, headers)
                                       : client_.perform({.method = "PUT",
                                                          .key = key,
                                                          .headers = conditional,
                                                          .body = as_bytes("2")}));
        if (auto removed = remove_key(key); !removed)
            log::warn("s3.probe_left", "an object made to try the store could not be removed",
                      {{"object", "s3://" + client_.options().bucket + "/" + key},
                       {"error", removed.error().message}});
        return refused;
    }

    Result<S3Answer> upload_probe(const std::string& key, const S3Pairs& headers) {
        const ObjectSource source = source_of(as_bytes("2"));
        return upload_in_parts(client_, key, 1, source, headers, kCreateOnly).answer;
    }

    // Carried out: false; refused for the condition: true. A store that does not know the condition
    // has not refused a name; if the request was wrong otherwise, the put that comes next says so.
    static Result<bool> is_refused(const Result<S3Answer>& answer) {
        if (!answer) return fail(answer.error());
        if (answer->ok()) return false;
        S3Failure failure = s3_failure(*answer);
        if (failure == S3Failure::exists) return true;
        if (failure == S3Failure::not_supported || failure == S3Failure::bad_input) return false;
        return fail(s3_error(*answer));
    }

    std::string root_;
    std::string url_;
    S3Client client_;
    S3Archive archive_;
    mutable std::mutex refused_mutex_;
    std::string last_refused_;
    std::mutex mutex_;  // of what follows
    std::optional<bool> honoured_;
    std::optional<bool> honoured_in_parts_;
    std::atomic<bool> has_locks_{false};  // or does not say that it has none
    std::atomic<bool> may_have_uploads_{true};
    std::atomic<std::chrono::steady_clock::time_point> sweep_at_{};
    std::atomic<std::uint64_t> read_bytes_{0};
    std::atomic<std::uint64_t> read_errors_{0};
};

}  // namespace

Result<std::unique_ptr<S3Store>> make_s3_store(FileSystem& files, S3Options options) {
    WV_TRY(S3Endpoint endpoint, s3_endpoint(options));
    return std::make_unique<BucketStore>(files, std::move(options), std::move(endpoint));
}

}  // namespace walvault::storage
