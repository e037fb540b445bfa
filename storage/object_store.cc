#include "storage/object_store.h"

namespace walvault::storage {

Result<ByteBuffer> read_source(const ObjectSource& source, std::uint64_t offset,
                               std::uint64_t length) {
    WV_TRY(ByteBuffer bytes, source(offset, length));
    if (bytes.size() == length) return bytes;
    return fail(Errc::corrupt, "what is to be put has " + std::to_string(bytes.size()) +
                                   " bytes from offset " + std::to_string(offset) + " where " +
                                   std::to_string(length) + " were expected");
}

Result<> ObjectStore::put_from(const std::string& name, std::uint64_t size_bytes,
                               const ObjectSource& source) {
    WV_TRY(ByteBuffer bytes, read_source(source, 0, size_bytes));
    return put(name, bytes);
}

}  // namespace walvault::storage
