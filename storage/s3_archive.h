// S3Archive: the archive classes of a bucket: what HEAD tells of an object, and RestoreObject.
#pragma once

#include <atomic>
#include <string>

#include "storage/archive_store.h"
#include "storage/s3_client.h"

namespace walvault::storage {

// x-amz-restore: 'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"'.
struct S3Restore {
    bool is_ongoing = false;
    std::optional<WallTime> until;
};
// Errors: corrupt.
Result<S3Restore> parse_s3_restore(std::string_view text);

// Keys are those of the bucket. Ceph's gateway has storage classes by their names and serves every
// object at once: where an archived object can be read all the same, which is tried once, it is
// ready.
class S3Archive {
public:
    // The client outlives it.
    explicit S3Archive(S3Client& client) : client_(client) {}
    Result<ArchiveState> state(const std::string& key);
    Result<ThawAnswer> thaw(const std::string& key, const ThawRequest& request);

private:
    enum class Archives { unknown, yes, by_name };
    // True: a byte of it was read. Errors: those of another reason than being archived.
    Result<bool> can_be_read(const std::string& key);

    S3Client& client_;
    std::atomic<Archives> archives_{Archives::unknown};
};

}  // namespace walvault::storage
