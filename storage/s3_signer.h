// AWS Signature Version 4 as S3 wants it: a request and credentials give the headers that sign it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/secret.h"

namespace walvault::storage {

struct S3Credentials {
    std::string access_key;
    SecretBytes secret_key;
    SecretBytes session_token;  // empty: none
};

using S3Pairs = std::vector<std::pair<std::string, std::string>>;

// Nothing in it is encoded; what is signed is what s3_encoded() and s3_query() make of it, and just
// that must be sent.
struct S3ToSign {
    std::string method;
    std::string host;  // as the Host header says it, with a port that is not the scheme's
    std::string path;  // "/bucket/a key"
    S3Pairs query;
    S3Pairs headers;             // names in lower case, each once; without host
    std::string payload_sha256;  // hexadecimal
};

// RFC 3986: all but A-Z a-z 0-9 - . _ ~ becomes %XX, and '/' too unless `keep_slashes`.
std::string s3_encoded(std::string_view text, bool keep_slashes);
// Encoded and sorted: "list-type=2&prefix=a%2Fb"; a name without a value has its "=".
std::string s3_query(const S3Pairs& query);

// What signs the requests of one day (UTC), "20130524", to one region. Made once for all of them:
// locked memory for each step would be most of what a small request costs.
SecretBytes s3_signing_key(const SecretBytes& secret, std::string_view day,
                           std::string_view region);
// The day of `now`.
std::string s3_day(WallTime now);

// The headers to add: authorization, x-amz-content-sha256, x-amz-date, and x-amz-security-token
// where the credentials have one. `key` is that of the day of `now`. Pure.
S3Pairs s3_signature(const S3ToSign& request, const S3Credentials& credentials,
                     const SecretBytes& key, const std::string& region, WallTime now);

}  // namespace walvault::storage
