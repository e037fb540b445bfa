#include "storage/s3_upload.h"

#include <algorithm>

#include "base/log.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kPartsMax = 10'000;
constexpr std::uint64_t kPartBytesMin = 5_MiB;
// The store puts the parts together before it answers.
constexpr std::chrono::seconds kCompletionTime{300};

class Upload {
public:
    Upload(S3Client& client, const std::string& key, std::string id)
        : client_(client), key_(key), id_(std::move(id)) {}

    Result<S3Answer> put_part(ByteSpan bytes) {
        S3Request request{
            .method = "PUT",
            .key = key_,
            .query = {{"partNumber", std::to_string(etags_.size() + 1)}, {"uploadId", id_}},
            .body = bytes,
            .check = [](const S3Answer& answer) -> Result<> {
                if (!answer.header("etag").empty()) return {};
                return fail(Errc::unavailable,
                            "the store took a part of an object and gave no ETag");
            }};
        auto answer = client_.perform(request);
        if (answer && answer->ok()) etags_.emplace_back(answer->header("etag"));
        return answer;
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

    void abort() {
        auto answer = client_.perform(S3Request{
            .method = "DELETE", .key = key_, .query = {{"uploadId", id_}}, .one_attempt = true});
        if (answer && (answer->ok() || s3_failure(*answer) == S3Failure::no_upload)) return;
        log::info(
            "s3.upload_left",
            "parts of an upload that was given up stay in the bucket until a rule removes them",
            {{"error", answer ? s3_error(*answer).message : answer.error().message}});
    }

private:
    S3Client& client_;
    const std::string& key_;
    std::string id_;
    std::vector<std::string> etags_;
};

}  // namespace

S3Uploaded upload_in_parts(S3Client& client, const std::string& key, ByteSpan bytes,
                           const S3Pairs& headers, const S3Pairs& conditions) {
    S3Request begin{.method = "POST", .key = key, .query = {{"uploads", ""}}, .headers = headers};
    std::string id;
    begin.check = [&id](const S3Answer& answer) -> Result<> {
        WV_TRY(id, parse_s3_upload_id(answer.body));
        return {};
    };
    auto begun = client.perform(begin);
    if (!begun || !begun->ok()) return {std::move(begun)};
    Upload upload(client, key, std::move(id));
    std::uint64_t least = (bytes.size() + kPartsMax - 1) / kPartsMax;
    std::uint64_t part_bytes = std::max({client.options().part_bytes, least, kPartBytesMin});
    for (std::uint64_t at = 0; at < bytes.size(); at += part_bytes) {
        auto answer = upload.put_part(
            bytes.subspan(at, std::min<std::uint64_t>(part_bytes, bytes.size() - at)));
        if (answer && answer->ok()) continue;
        upload.abort();
        return {std::move(answer)};
    }
    auto answer = upload.complete(conditions);
    if (answer && answer->ok()) return {std::move(answer)};
    // An upload whose completion was carried out is gone, and so aborting it does no harm.
    upload.abort();
    bool unsettled = answer ? s3_failure(*answer) == S3Failure::no_upload
                            : answer.error().code == Errc::unavailable;
    return {std::move(answer), unsettled};
}

}  // namespace walvault::storage
