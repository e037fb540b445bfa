// Puts to a tier, where an object that is there already may be one's own whose answer was lost.
#pragma once

#include <string>

#include "storage/object_store.h"

namespace walvault::storage {

Error another_writer(const ObjectStore& tier, const std::string& what);

// Whether the tier's object has these bytes and no more. Errors: those of get().
Result<bool> is_equal(ObjectStore& tier, const std::string& name, ByteSpan bytes);

// Success also if it is there already with the same bytes. Errors: refused (with others); the
// store's.
Result<> put_once(ObjectStore& tier, const std::string& name, ByteSpan bytes);

// The same of an object of the repository, piece by piece; returns the bytes that went. Where it
// may be there it is compared before it is put for nothing. One that is not in the repository any
// more is told of, and the tier goes without it. From any thread.
Result<std::uint64_t> put_object_once(ObjectStore& repository, ObjectStore& tier,
                                      const std::string& name, bool may_be_there);

}  // namespace walvault::storage
