#include "storage/s3_upload.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include "base/log.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kPartsMax = 10'000;
constexpr std::uint64_t kPartBytesMin = 5_MiB;
// What only tries the store does not wait for what is sent.
constexpr std::uint64_t kProbeBytesMax = 64_KiB;
// Of one object: others go beside it.
constexpr unsigned kPartsAtOnce = 4;
// The store puts the parts together before it answers.
constexpr std::chrono::seconds kCompletionTime{300};

class Upload {
public:
    Upload(S3Client& client, const std::string& key, std::string id, std::uint64_t size_bytes)
        : client_(client), key_(key), id_(std::move(id)), size_bytes_(size_bytes) {
        const std::uint64_t least = (size_bytes + kPartsMax - 1) / kPartsMax;
        part_bytes_ = std::max({client.options().part_bytes, least, kPartBytesMin});
        etags_.resize((size_bytes + part_bytes_ - 1) / part_bytes_);
    }

    // The answer to the last one, or to the first that was not taken.
    Result<S3Answer> put_parts(const ObjectSource& source) {
        const std::size_t count = std::min<std::size_t>(parts_at_once(), etags_.size());
        std::vector<std::optional<Result<S3Answer>>> ends(count);
        {
            std::vector<std::jthread> others;
            for (std::size_t number = 1; number < count; ++number)
                others.emplace_back([&, number] { put_some(source, ends[number]); });
            put_some(source, ends[0]);
        }
        // What was stopped for another's sake says nothing.
        for (auto& end : ends)
            if (end && (!*end || !(*end)->ok())) return std::move(*end);
        return S3Answer{.status = 200};
    }

    Result<S3Answer> complete(const S3Pairs& conditions) {
        std::string body = s3_completion(etags_);
        return client_.perform(S3Request{
            .method = "POST",
            .key = key_,
            .query = {{"uploadId", id_}},
            .headers = conditions,
            .body = as_bytes(body),
            .stall_timeout = kCompletionTime,
            .retry_for = client_.options().retry_for / 4,
            .check = [](const S3Answer& answer) { return check_s3_completed(answer.body); }});
    }

    // True: it is gone.
    bool abort() {
        auto aborted = abort_upload(client_, key_, id_);
        if (aborted) return true;
        log::info("s3.upload_left",
                  "parts of an upload that was given up stay in the bucket unseen",
                  {{"error", aborted.error().message}});
        return false;
    }

private:
    // Those that are sent, and one that is digested meanwhile.
    unsigned parts_at_once() const {
        const unsigned at_once = client_.options().concurrency;
        return (at_once == 0 ? kPartsAtOnce : std::min(at_once, kPartsAtOnce)) + 1;
    }

    void put_some(const ObjectSource& source, std::optional<Result<S3Answer>>& end) {
        while (!failed_) {
            const std::size_t number = next_++;
            if (number >= etags_.size()) return;
            end = put_part(number, source);
            if (!*end || !(*end)->ok()) failed_ = true;
        }
    }

    Result<S3Answer> put_part(std::size_t number, const ObjectSource& source) {
        const std::uint64_t start = number * part_bytes_;
        const std::uint64_t count = std::min(part_bytes_, size_bytes_ - start);
        ByteBuffer held;
        if (source.is_far()) {
            WV_TRY(held, read_source(source, start, count));
        }
        S3Request request{.method = "PUT",
                          .key = key_,
                          .query = {{"partNumber", std::to_string(number + 1)}, {"uploadId", id_}},
                          .body = held,
                          .is_bulk = size_bytes_ > kProbeBytesMax,
                          .check = [](const S3Answer& answer) -> Result<> {
                              if (!answer.header("etag").empty()) return {};
                              return fail(Errc::unavailable,
                                          "the store took a part of an object and gave no ETag");
                          }};
        if (!source.is_far()) {
            request.source = [&source, start](std::uint64_t offset, MutableByteSpan into) {
                return source(start + offset, into);
            };
            request.source_bytes = count;
        }
        auto answer = client_.perform(request);
        if (answer && answer->ok()) etags_[number] = answer->header("etag");
        return answer;
    }

    S3Client& client_;
    const std::string& key_;
    std::string id_;
    std::uint64_t size_bytes_;
    std::uint64_t part_bytes_ = 0;
    std::vector<std::string> etags_;  // each written by the thread that put the part
    std::atomic<std::size_t> next_{0};
    std::atomic<bool> failed_{false};
};

}  // namespace

Result<> abort_upload(S3Client& client, const std::string& key, const std::string& id) {
    WV_TRY(S3Answer answer,
           client.perform(S3Request{
               .method = "DELETE", .key = key, .query = {{"uploadId", id}}, .one_attempt = true}));
    if (answer.ok() || s3_failure(answer) == S3Failure::no_upload) return {};
    return fail(s3_error(answer));
}

S3Uploaded upload_in_parts(S3Client& client, const std::string& key, std::uint64_t size_bytes,
                           const ObjectSource& source, const S3Pairs& headers,
                           const S3Pairs& conditions) {
    S3Request begin{.method = "POST", .key = key, .query = {{"uploads", ""}}, .headers = headers};
    std::string id;
    begin.check = [&id](const S3Answer& answer) -> Result<> {
        WV_TRY(id, parse_s3_upload_id(answer.body));
        return {};
    };
    auto begun = client.perform(begin);
    // One that was begun all the same is known to nobody.
    const bool open = begun && begun->ok() && begun->attempts > 1;
    if (!begun || !begun->ok()) return {std::move(begun), false, true};
    Upload upload(client, key, std::move(id), size_bytes);
    auto put = upload.put_parts(source);
    if (!put || !put->ok()) return {std::move(put), false, !upload.abort() || open};
    auto answer = upload.complete(conditions);
    if (answer && answer->ok()) return {std::move(answer), false, open};
    // An upload whose completion was carried out is gone, and so aborting it does no harm.
    const bool left = !upload.abort() || open;
    bool unsettled = answer ? s3_failure(*answer) == S3Failure::no_upload
                            : answer.error().code == Errc::unavailable;
    return {std::move(answer), unsettled, left};
}

}  // namespace walvault::storage
