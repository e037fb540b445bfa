#include "storage/read_back.h"

#include <algorithm>
namespace walvault::storage {
namespace {

constexpr std::uint64_t kSampleBytes = 64 << 10;
constexpr std::uint64_t kWholeBytes = 4 << 20;

Error not_as_here(ObjectStore& tier, const std::string& path, const std::string& what) {
    return Error{Errc::corrupt, tier.url() + "/" + path + " " + what,
                 "the pack stays here; `walvault verify --from` says what else is wrong there"};
}

}  // namespace

Result<> read_back(ObjectStore& directory, ObjectStore& tier, const pb::PackInfo& pack,
                   std::uint64_t draw) {
    const std::string& path = pack.path();
    auto there = tier.info(path);
    if (!there && there.error().code == Errc::not_found)
        return fail(not_as_here(tier, path, "is not there"));
    if (!there) return fail(std::move(there).error());
    WV_TRY(ObjectInfo here, directory.info(path));
    if (there->size_bytes != here.size_bytes)
        return fail(not_as_here(tier, path, "has another size than here"));
    const bool whole = pack.kind() == pb::PACK_KIND_MANIFEST || here.size_bytes <= kSampleBytes;
    const std::uint64_t step = whole ? kWholeBytes : kSampleBytes;
    std::uint64_t at = whole ? 0 : draw % (here.size_bytes - kSampleBytes + 1);
    do {
        WV_TRY(ByteBuffer mine, directory.get(path, at, step));
        auto its = tier.get(path, at, step);
        // Nobody reads what is archived: its size, and the digest with which it was put, must do.
        if (!its && its.error().code == Errc::archived) return {};
        if (!its) return fail(std::move(its).error());
        if (!std::ranges::equal(mine, *its))
            return fail(
                not_as_here(tier, path, "is not as here from byte " + std::to_string(at) + " on"));
        at += step;
    } while (whole && at < here.size_bytes);
    return {};
}

}  // namespace walvault::storage
