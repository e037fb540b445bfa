// Where a bucket is and how it is spoken to: "s3://bucket/prefix" with options, and where the
// credentials are.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/file_system.h"
#include "base/result.h"
#include "storage/s3_signer.h"

namespace walvault::storage {

struct S3Options {
    enum class Style {
        automatic,  // host style at AWS, path style at an endpoint that is named
        path,       // https://endpoint/bucket/name
        host,       // https://bucket.endpoint/name
    };
    std::string bucket;
    std::string prefix;    // before every name, without '/' at its ends; may be empty
    std::string endpoint;  // "https://host:port"; empty: AWS's for the region
    std::string region = "us-east-1";
    Style style = Style::automatic;
    std::string ca_file;  // PEM; empty: the system's
    // Of packs, as S3 names them; empty: the bucket's, and for the kinds of packs storage_class.
    // What every reader needs first (ledger, keyrings, manifests, tails) is always the bucket's.
    std::string storage_class;
    std::string storage_class_wal;
    std::string storage_class_base;
    // "environment": AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
    // "file:/path": lines access_key, secret_key, session_token, each with " = value"; mode 0600.
    // "credential:NAME": such a file in systemd's $CREDENTIALS_DIRECTORY.
    // "imds:": those of the role of this machine at Amazon; "imds:http://127.0.0.1:PORT" asks a
    // proxy of that service.
    std::string credentials = "environment";
    std::string sse;          // "AES256", "aws:kms" or "aws:kms:KEY"; empty: the bucket's
    S3Pairs tags;             // of every object
    std::string object_lock;  // "GOVERNANCE" or "COMPLIANCE"; empty: objects are not locked
    std::chrono::hours object_lock_for{0};  // from the put on
    unsigned concurrency = 0;               // bulk requests at once; 0: as many as are asked for
    std::uint64_t bandwidth = 0;            // bytes a second that are sent; 0: no limit

    std::chrono::seconds connect_timeout{10};
    std::chrono::seconds stall_timeout{
        30};  // a request in which no byte moves for so long is broken
    std::chrono::seconds retry_for{
        60};  // after its first one no attempt of a request begins later than this
    // What is larger is put in parts. A store that honours create-only for whole objects and not
    // for those in parts keeps the promise up to this size.
    std::uint64_t multipart_above_bytes = 64_MiB;
    std::uint64_t part_bytes = 16_MiB;

    bool operator==(const S3Options&) const = default;
};

// "s3://bucket/prefix?region=eu-west-1&endpoint=https://host:9000": the options as a query, by the
// names set_s3_option() knows, %XX decoded. What is in the text beside them is never in an error.
// Errors: invalid_argument.
Result<S3Options> parse_s3_url(std::string_view url);
// region, endpoint, style ("path", "host", "auto"), ca_file, storage_class, storage_class_wal,
// storage_class_base, credentials, sse, tags ("a=1, b=2"), object_lock ("off", "governance 30d",
// "compliance 30d"), concurrency, bandwidth (bytes, or with KiB/s, MiB/s or GiB/s).
// Errors: invalid_argument if the name is unknown or the value cannot be meant.
Result<> set_s3_option(S3Options& options, std::string_view name, std::string_view value);

// What a request of these options goes to.
struct S3Endpoint {
    std::string origin;     // "https://bucket.s3.eu-west-1.amazonaws.com"
    std::string host;       // as the Host header says it
    std::string path_root;  // "/bucket" in path style, else ""
};
// Errors: invalid_argument, if bucket, endpoint and style do not go together.
Result<S3Endpoint> s3_endpoint(const S3Options& options);

// Reads them anew: keys are rotated while a process lives. Errors: wrong_key, with what is missing
// where; unavailable where a machine's service does not answer; invalid_argument if `source` is
// none of the forms.
Result<S3Credentials> read_s3_credentials(FileSystem& files, const std::string& source);

}  // namespace walvault::storage
