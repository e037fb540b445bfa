// Requests to one bucket: signed, sent over kept connections, tried again where that can help.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "storage/object_store.h"
#include "storage/s3_answer.h"
#include "storage/s3_options.h"

namespace walvault::storage {

struct S3Request {
    std::string method;
    std::string key;  // of the object; empty: the bucket itself
    S3Pairs query;    // not encoded
    S3Pairs
        headers;  // names in lower case; what signs is added, and Content-MD5 where it is wanted
    ByteSpan body;
    // Instead of `body`: `source_bytes` that it gives piece by piece, once to be digested and again
    // in each attempt; no more than a piece of them is in memory. Up to 64 KiB are read once.
    ObjectSource source = {};
    std::uint64_t source_bytes = 0;
    // Of those no more than the options' concurrency are sent at once; others do not wait for them.
    bool is_bulk = false;
    // More than that in a good answer is an error. Other answers may have 64 KiB.
    std::uint64_t answer_bytes_max = 64_KiB;
    // For an answer that takes the store longer than the options' stall_timeout.
    std::optional<std::chrono::seconds> stall_timeout = {};
    bool one_attempt = false;
    std::optional<std::chrono::seconds> retry_for = {};  // instead of the options'
    // Of a good answer; one that fails it is taken for a broken one and asked for again.
    std::function<Result<>(const S3Answer&)> check = {};

    std::uint64_t body_bytes() const { return source ? source_bytes : body.size(); }
};

// May be used from any thread; every call blocks and has a connection of its own while it runs.
// Together they send no more than the options' bandwidth, and what is not bulk goes first. TLS is
// always verified, redirects are never followed. A proxy is used if the environment names one
// (https_proxy, no_proxy), as curl does.
class S3Client {
public:
    // `files` is for credentials, which are read at the first request, and again when the store
    // says that they are over or unknown.
    S3Client(FileSystem& files, S3Options options, S3Endpoint endpoint);
    ~S3Client();
    S3Client(const S3Client&) = delete;
    S3Client& operator=(const S3Client&) = delete;

    // The store's last word, which may well be a refusal: see s3_failure(). What is worth another
    // try (broken connections, bodies that end early, 5xx, 429, a store that says it is busy) has
    // been tried again after random waits of up to 0.1 s, 0.2 s, … 10 s, for as long as the options
    // say. A request may so have been carried out more than once, and also when an error is
    // returned. Errors: unavailable, what s3_error() makes of the last answer, cancelled,
    // wrong_key; those of the request's source.
    Result<S3Answer> perform(const S3Request& request);
    // Requests that run or wait end soon with cancelled, later ones at once. From any thread.
    void cancel();

    struct Counts {
        std::uint64_t requests = 0;
        std::uint64_t retries = 0;
        std::uint64_t throttled = 0;
    };
    Counts counts() const;
    const S3Options& options() const;

private:
    Result<S3Answer> attempt_until_done(const S3Request& request);

    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
