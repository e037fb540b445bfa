// TierStore: a tier read as a repository: the pieces of an open tail are one object, the tail.
//
// A tier has the names of a repository. Only an open tail, a file that grows, lies there in pieces
// that do not: "<path>.tail/<offset as 16 hex digits>", each from where the one before it ends.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "storage/object_store.h"
#include "storage/s3_options.h"

namespace walvault::storage {

std::string tail_piece_name(const std::string& tail_path, std::uint64_t offset);

struct TailPieceName {
    std::string tail_path;
    std::uint64_t offset = 0;
};
// Nothing for any other name.
std::optional<TailPieceName> parse_tail_piece_name(std::string_view name);

// By which name the ledger speaks of a tier: of its [repo.NAME]. It lies there as "tier"; a copy
// that has none is one of the repository's directory.
inline constexpr std::string_view kTierNameObject = "tier";
std::string encode_tier_name(const std::string& name);
// Nothing where there is none. Errors: corrupt; the store's.
Result<std::optional<std::string>> read_tier_name(ObjectStore& tier);

// Over the objects of a tier, or of a repository, where tails are whole. A hole in the pieces ends
// the tail; without the first one there is none. A tail that is put becomes one piece, and is
// removed from its beginning on, so that who reads it meanwhile misses it rather than its end.
std::unique_ptr<ObjectStore> make_tier_store(std::unique_ptr<ObjectStore> objects);

// The directory of "file:///absolute/path", without slashes at its end. Errors: invalid_argument.
Result<std::string> directory_of_url(const std::string& url);

// Where a tier is, and what belongs to it.
struct TierPlace {
    std::string url;                  // of a bucket without options
    std::optional<S3Options> bucket;  // nothing: a directory
};
// "file:///absolute/path" or "s3://bucket/prefix?region=…", as parse_s3_url(). An s3 URL is never
// in the error. Errors: invalid_argument naming what can be written.
Result<TierPlace> parse_tier_url(const std::string& url);

// How many objects are worth putting there at once: of a bucket as many as may be sent, and two
// that are digested or asked after meanwhile.
unsigned objects_at_once(const TierPlace& place);

// The objects of the tier, as they lie there. Nothing is asked of the other end yet. Errors:
// invalid_argument.
Result<std::unique_ptr<ObjectStore>> open_tier_objects(FileSystem& files, const TierPlace& place);
// The same as TierStore, for readers.
Result<std::unique_ptr<ObjectStore>> open_tier_store(FileSystem& files, const TierPlace& place);

}  // namespace walvault::storage
