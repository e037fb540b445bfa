#include "storage/object_store.h"

#include <algorithm>

namespace walvault::storage {

Result<> fill_from(const ObjectSource& source, std::uint64_t offset, MutableByteSpan into) {
    WV_TRY(const std::size_t count, source(offset, into));
    if (count == into.size()) return {};
    return fail(Errc::corrupt, "what is to be put has " + std::to_string(count) +
                                   " bytes from offset " + std::to_string(offset) + " where " +
                                   std::to_string(into.size()) + " were expected");
}

Result<ByteBuffer> read_source(const ObjectSource& source, std::uint64_t offset,
                               std::uint64_t length) {
    ByteBuffer bytes(length);
    WV_CHECK(fill_from(source, offset, bytes));
    return bytes;
}

ObjectSource source_of(ByteSpan bytes) {
    return [bytes](std::uint64_t offset, MutableByteSpan into) -> Result<std::size_t> {
        const ByteSpan rest = bytes.subspan(std::min<std::uint64_t>(offset, bytes.size()));
        const std::size_t count = std::min(rest.size(), into.size());
        std::ranges::copy(rest.first(count), into.begin());
        return count;
    };
}

Result<std::size_t> ObjectStore::get_into(const std::string& name, std::uint64_t offset,
                                          MutableByteSpan into) {
    WV_TRY(const ByteBuffer bytes, get(name, offset, into.size()));
    if (bytes.size() > into.size())
        return fail(Errc::corrupt, "the store gave " + std::to_string(bytes.size()) + " bytes of " +
                                       name + " where " + std::to_string(into.size()) +
                                       " were asked for");
    std::ranges::copy(bytes, into.begin());
    return bytes.size();
}

Result<> ObjectStore::put_from(const std::string& name, std::uint64_t size_bytes,
                               const ObjectSource& source) {
    WV_TRY(ByteBuffer bytes, read_source(source, 0, size_bytes));
    return put(name, bytes);
}

}  // namespace walvault::storage
