#include "storage/tier_put.h"

#include <algorithm>

#include "base/log.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kCompareBytes = 4 << 20;

Result<bool> is_equal(ObjectStore& tier, const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) {
    WV_TRY(ObjectInfo info, tier.info(name));
    if (info.size_bytes != size_bytes) return false;
    for (std::uint64_t at = 0; at < size_bytes; at += kCompareBytes) {
        const std::uint64_t count = std::min(kCompareBytes, size_bytes - at);
        WV_TRY(ByteBuffer here, read_source(source, at, count));
        WV_TRY(ByteBuffer there, tier.get(name, at, count));
        if (!std::ranges::equal(there, here)) return false;
    }
    return true;
}

Error another_one(const ObjectStore& tier, const std::string& name) {
    return another_writer(tier, name + " is there and is another one");
}

}  // namespace

Error another_writer(const ObjectStore& tier, const std::string& what) {
    return Error{
        Errc::refused, tier.url() + ": " + what,
        "one tier is written by one repository: stop the other agent, or give each an empty tier "
        "of its own"};
}

Result<bool> is_equal(ObjectStore& tier, const std::string& name, ByteSpan bytes) {
    return is_equal(tier, name, bytes.size(), source_of(bytes));
}

Result<> put_once(ObjectStore& tier, const std::string& name, ByteSpan bytes) {
    auto done = tier.put(name, bytes);
    if (done || done.error().code != Errc::refused) return done;
    WV_TRY(bool equal, is_equal(tier, name, bytes));
    if (equal) return {};
    return fail(another_one(tier, name));
}

Result<std::uint64_t> put_object_once(ObjectStore& repository, ObjectStore& tier,
                                      const std::string& name, bool may_be_there) {
    auto here = repository.info(name);
    if (!here && here.error().code == Errc::not_found) {
        // Not where its disk is away and only the mount point is left.
        WV_CHECK(repository.info(kHeaderName).map([](const auto&) {}));
        // The tier cannot have more than there is; what is behind it is worth having all the same.
        log::error("offload.pack_missing",
                   "it is not in the repository any more, so the tier goes without it",
                   {{"pack", name}, {"tier", tier.url()}});
        return 0;
    }
    if (!here) return fail(std::move(here).error());
    const std::uint64_t size_bytes = here->size_bytes;
    // In pieces: a pack may be larger than what memory there is.
    const ObjectSource source(
        [&repository, &name](std::uint64_t offset, MutableByteSpan into) {
            return repository.get_into(name, offset, into);
        },
        !repository.is_near());
    if (may_be_there) {
        auto equal = is_equal(tier, name, size_bytes, source);
        if (equal && *equal) return 0;
        if (equal) return fail(another_one(tier, name));
        if (equal.error().code != Errc::not_found) return fail(std::move(equal).error());
    }
    auto done = tier.put_from(name, size_bytes, source);
    if (done) return size_bytes;
    if (done.error().code != Errc::refused) return fail(std::move(done).error());
    WV_TRY(bool equal, is_equal(tier, name, size_bytes, source));
    if (equal) return 0;
    return fail(another_one(tier, name));
}

}  // namespace walvault::storage
