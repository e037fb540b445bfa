// An ObjectStore in a bucket of Amazon S3 or of a store that speaks its protocol.
#pragma once

#include <memory>
#include <string>

#include "base/file_system.h"
#include "storage/object_store.h"
#include "storage/s3_client.h"

namespace walvault::storage {

// Objects are named prefix/name. As ObjectStore, and:
//
// put() has a store refuse a name that exists (If-None-Match: *), if the store has shown that it
// does: honours_create_only(). Where it does not, put() looks first, and of two that put the same
// name at once the later one wins. An error other than refused, no_space and invalid_argument
// leaves open whether the object is there; when the answer was lost, put() has looked for its own
// object before it says anything.
//
// remove() does not hide what the store has locked: refused, with until when. Where locks are or
// were, it removes the version that is there; elsewhere a bucket that keeps versions keeps it.
//
// not_found is said of an object that the store says is absent in a bucket that it says is there. A
// missing bucket, a key that may not, a token that is over, a wrong region, and a store that does
// not answer are unavailable, each with its own message and hint.
class S3Store : public ObjectStore {
public:
    // Whether a put of `size_bytes` is refused by the store itself where the name exists. Tried at
    // the first call, and then known: an object with a name of its own is put twice and removed.
    // Large objects are put in parts, which a store may treat otherwise. Of writers that come at
    // once this says nothing: a store that looks and then writes may let more than one through.
    // Errors: as put.
    virtual Result<bool> honours_create_only(std::uint64_t size_bytes) = 0;
    virtual S3Client::Counts counts() const = 0;
};

// Nothing is asked of the store before the first call. Errors: invalid_argument.
Result<std::unique_ptr<S3Store>> make_s3_store(FileSystem& files, S3Options options);

}  // namespace walvault::storage
