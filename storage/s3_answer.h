// What an S3 store says: the XML of its answers, and which of its refusals means what. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace walvault::storage {

struct S3Answer {
    int status = 0;
    std::map<std::string, std::string> headers;  // names in lower case
    ByteBuffer body;
    unsigned attempts = 1;

    bool ok() const { return status >= 200 && status < 300; }
    std::string_view header(const std::string& name) const {
        auto found = headers.find(name);
        return found == headers.end() ? std::string_view() : std::string_view(found->second);
    }
};

// By what can be done about it.
enum class S3Failure {
    absent,         // the object is not there, in a bucket that is
    no_bucket,      // nothing is proven about any object
    no_upload,      // the multipart upload is finished, aborted or never was
    forbidden,      // who we are may not do this
    bad_key,        // the store does not know the key, or the signature is not the one it makes
    expired,        // the session token is over
    clock,          // our clock and the store's are too far apart
    wrong_region,   // the bucket is somewhere else
    exists,         // a condition of the request was not met
    conflict,       // with another request at this moment; worth another try
    throttled,      // too much at once; worth another try, later
    broken,         // the store failed; worth another try
    full,           // a quota, or no space
    archived,       // the object must be thawed first
    no_capacity,    // for a fast thaw; a slower one is possible
    beyond_end,     // the range begins where the object has ended
    bad_input,      // the same request will fail again
    not_supported,  // the store does not know this
    unclear,        // an answer that says none of these
};

// The <Code> of an error's body, if it looks like one, else ""; nothing else that the other side
// wrote is ever shown. A region it names beside it.
struct S3Code {
    std::string code;
    std::string region;
};
S3Code parse_s3_code(const S3Answer& answer);

S3Failure s3_failure(const S3Answer& answer);
bool is_worth_another_try(S3Failure failure);
// "the store answered 403 AccessDenied", with a code by what the caller can do and a hint.
Error s3_error(const S3Answer& answer);

// A page of ListObjectsV2.
struct S3Page {
    struct Entry {
        std::string key;
        std::uint64_t size_bytes = 0;
        std::string storage_class = {};
    };
    std::vector<Entry> entries;
    std::string next;  // empty: the last page
};
// Errors: corrupt.
Result<S3Page> parse_s3_page(ByteSpan body);
// A page of ListMultipartUploads: what was begun and neither completed nor aborted.
struct S3Uploads {
    struct Entry {
        std::string key;
        std::string id;
    };
    std::vector<Entry> entries;
    std::string next_key;  // empty: the last page
    std::string next_id;
};
// Errors: corrupt.
Result<S3Uploads> parse_s3_uploads(ByteSpan body);
// Errors: corrupt.
Result<std::string> parse_s3_upload_id(ByteSpan body);
// A complete may answer 200 and then fail in its body. Errors: corrupt if this is not its result.
Result<> check_s3_completed(ByteSpan body);
// What completes an upload; the ETags in the order of the parts, the first has number 1.
std::string s3_completion(const std::vector<std::string>& etags);

// What sets the lock of an object, and its tags, where they did not come with it.
std::string s3_retention(const std::string& mode, const std::string& until);
std::string s3_tagging(const std::vector<std::pair<std::string, std::string>>& tags);

// "bytes 3-6/10".
struct S3Range {
    std::uint64_t first = 0;
    std::uint64_t last = 0;  // of the bytes that are there
    std::uint64_t size = 0;  // of the object
};
// The name of a storage class, or nothing if it does not look like one.
std::string parse_s3_class(std::string_view text);
// Errors: corrupt.
Result<S3Range> parse_s3_range(std::string_view text);
// A decimal number and nothing else. Errors: corrupt.
Result<std::uint64_t> parse_s3_number(std::string_view text);

}  // namespace walvault::storage
