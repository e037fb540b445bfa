#include "storage/s3_lock.h"

#include <pugixml.hpp>

#include "base/clock.h"

namespace walvault::storage {
namespace {

// A store that does not know the question may answer with a page of a list.
constexpr std::uint64_t kLockAnswerBytesMax = 16_MiB;

// Of the seconds of two times as RFC 3339 in UTC.
bool is_later(const std::string& at, const std::string& than) {
    constexpr std::size_t kToSeconds = 19;
    return at.compare(0, kToSeconds, than, 0, kToSeconds) > 0;
}

bool says_enabled(const S3Answer& answer) {
    pugi::xml_document document;
    if (!document.load_buffer(answer.body.data(), answer.body.size())) return false;
    const pugi::xml_node root = document.child("ObjectLockConfiguration");
    return root.child_value("ObjectLockEnabled") == std::string_view("Enabled");
}

}  // namespace

S3Lock s3_lock_in(const S3Answer& answer) {
    return {.mode = std::string(answer.header("x-amz-object-lock-mode").substr(0, 32)),
            .until = std::string(answer.header("x-amz-object-lock-retain-until-date")),
            .is_held = answer.header("x-amz-object-lock-legal-hold") == "ON"};
}

bool is_locked(const S3Lock& lock) {
    return lock.is_held ||
           (!lock.until.empty() && is_later(lock.until, to_utc_text(system_clock().now())));
}

Error s3_locked_error(const S3Lock& lock) {
    return Error{Errc::refused,
                 lock.is_held ? "it is under legal hold in the store"
                              : "it is locked in the store until " + lock.until.substr(0, 64) +
                                    " (" + lock.mode + ")",
                 "It can be removed when the lock is over.", Origin::server};
}

Result<> check_bucket_locks(S3Client& client) {
    WV_TRY(S3Answer answer, client.perform({.method = "GET",
                                            .query = {{"object-lock", ""}},
                                            .answer_bytes_max = kLockAnswerBytesMax}));
    const bool is_told_off = parse_s3_code(answer).code == "ObjectLockConfigurationNotFoundError";
    const S3Failure failure = answer.ok() ? S3Failure::unclear : s3_failure(answer);
    if (answer.ok() ? says_enabled(answer) : failure == S3Failure::forbidden) return {};
    if (!answer.ok() && !is_told_off && failure != S3Failure::not_supported)
        return fail(s3_error(answer));
    return fail(Error{Errc::unsupported, "the bucket does not lock objects, and object_lock is set",
                      "Use a bucket that was made with object lock, or leave object_lock out.",
                      Origin::server});
}

}  // namespace walvault::storage
