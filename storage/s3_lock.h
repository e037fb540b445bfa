// Objects that an S3 store keeps from being removed: how they are told, and whether a bucket can.
#pragma once

#include <string>

#include "storage/s3_client.h"

namespace walvault::storage {

struct S3Lock {
    std::string mode;   // empty: none
    std::string until;  // RFC 3339, UTC
    bool is_held = false;
};

// Of the answer to a HEAD.
S3Lock s3_lock_in(const S3Answer& answer);
// Whether it holds now.
bool is_locked(const S3Lock& lock);
// refused, with until when.
Error s3_locked_error(const S3Lock& lock);

// That the bucket was made with object lock. A store that has no such thing may take a put with a
// lock and not lock anything, and write the text that would lock an object into the object. A key
// that may not ask is taken for a yes. Errors: unsupported; as S3Client::perform.
Result<> check_bucket_locks(S3Client& client);

}  // namespace walvault::storage
