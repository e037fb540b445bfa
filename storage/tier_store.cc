#include "storage/tier_store.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <mutex>

#include "storage/s3_store.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kTailSuffix = ".tail";
constexpr std::string_view kInTail = ".tail/";
constexpr std::size_t kOffsetDigits = 16;
constexpr std::string_view kTierNameMagic = "WVTIER1\n";
constexpr std::size_t kTierNameBytesMax = 1024;
constexpr std::string_view kTierNameCharacters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

bool is_tail(std::string_view name) { return name.ends_with(kTailSuffix); }

struct Piece {
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
};
// From offset 0 on, none missing.
using Pieces = std::vector<Piece>;

std::uint64_t end_of(const Pieces& pieces) {
    return pieces.empty() ? 0 : pieces.back().offset + pieces.back().size_bytes;
}

// In order of offset, as they are listed.
void add_if_contiguous(Pieces& pieces, const Piece& piece) {
    if (piece.offset == end_of(pieces) && (piece.size_bytes > 0 || pieces.empty()))
        pieces.push_back(piece);
}

class TierStore final : public ObjectStore {
public:
    explicit TierStore(std::unique_ptr<ObjectStore> objects) : objects_(std::move(objects)) {}

    Result<> put(const std::string& name, ByteSpan bytes) override {
        WV_CHECK(refuse_piece(name));
        if (!is_tail(name)) return objects_->put(name, bytes);
        auto found = info(name);
        if (found) return fail(Errc::refused, name + " exists; a name is written once");
        if (found.error().code != Errc::not_found) return fail(std::move(found).error());
        return objects_->put(tail_piece_name(name, 0), bytes);
    }

    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        WV_CHECK(refuse_piece(name));
        if (!is_tail(name)) return objects_->put_from(name, size_bytes, source);
        return ObjectStore::put_from(name, size_bytes, source);
    }

    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        WV_CHECK(refuse_piece(name));
        if (!is_tail(name)) return objects_->get(name, offset, length);
        auto known = known_pieces(name);
        if (!known) {
            auto whole = objects_->get(name, offset, length);
            if (whole || whole.error().code != Errc::not_found) return whole;
        }
        // It may have grown since.
        if (!known || offset > end_of(*known) || length > end_of(*known) - offset) {
            WV_TRY(known, find_pieces(name));
        }
        return read(name, *known, offset, length);
    }

    Result<ObjectInfo> info(const std::string& name) override {
        WV_CHECK(refuse_piece(name));
        auto whole = objects_->info(name);
        if (whole || whole.error().code != Errc::not_found || !is_tail(name)) return whole;
        WV_TRY(Pieces pieces, find_pieces(name));
        return ObjectInfo{name, end_of(pieces)};
    }

    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        WV_TRY(auto listed, objects_->list(prefix));
        std::vector<ObjectInfo> objects;
        std::map<std::string, Pieces> tails;
        for (ObjectInfo& object : listed) {
            if (auto piece = parse_tail_piece_name(object.name))
                add_if_contiguous(tails[piece->tail_path], {piece->offset, object.size_bytes});
            else
                objects.push_back(std::move(object));
        }
        for (const auto& [path, pieces] : tails)
            if (!pieces.empty() && path.starts_with(prefix))
                objects.push_back({path, end_of(pieces)});
        std::ranges::sort(objects, {}, &ObjectInfo::name);
        return objects;
    }

    Result<> remove(const std::string& name) override {
        WV_CHECK(refuse_piece(name));
        if (!is_tail(name)) return objects_->remove(name);
        auto whole = objects_->remove(name);
        if (whole || whole.error().code != Errc::not_found) return whole;
        WV_TRY(Pieces pieces, find_pieces(name));
        for (const Piece& piece : pieces)
            WV_CHECK(objects_->remove(tail_piece_name(name, piece.offset)));
        return {};
    }

    Result<std::size_t> get_into(const std::string& name, std::uint64_t offset,
                                 MutableByteSpan into) override {
        if (is_tail(name)) return ObjectStore::get_into(name, offset, into);
        WV_CHECK(refuse_piece(name));
        return objects_->get_into(name, offset, into);
    }

    bool is_near() const override { return objects_->is_near(); }
    std::string url() const override { return objects_->url(); }
    Reads reads() const override { return objects_->reads(); }
    ArchiveStore* archive() override { return objects_->archive(); }
    Result<> sweep() override { return objects_->sweep(); }
    void cancel() override { objects_->cancel(); }

private:
    static Result<> refuse_piece(const std::string& name) {
        if (!parse_tail_piece_name(name)) return {};
        return fail(Errc::invalid_argument, "\"" + name + "\" is a piece of a tail, not an object");
    }

    std::optional<Pieces> known_pieces(const std::string& name) {
        std::lock_guard lock(mutex_);
        auto found = pieces_.find(name);
        return found == pieces_.end() ? std::nullopt : std::optional(found->second);
    }

    // As they are now. Errors: not_found.
    Result<Pieces> find_pieces(const std::string& name) {
        WV_TRY(auto listed, objects_->list(name + "/"));
        Pieces pieces;
        for (const ObjectInfo& object : listed)
            if (auto piece = parse_tail_piece_name(object.name))
                add_if_contiguous(pieces, {piece->offset, object.size_bytes});
        std::lock_guard lock(mutex_);
        if (pieces.empty()) {
            pieces_.erase(name);
            return fail(Errc::not_found, url() + "/" + name + " is not there");
        }
        pieces_[name] = pieces;
        return pieces;
    }

    Result<ByteBuffer> read(const std::string& name, const Pieces& pieces, std::uint64_t offset,
                            std::uint64_t length) {
        ByteBuffer bytes;
        auto piece = std::ranges::upper_bound(pieces, offset, {}, &Piece::offset);
        if (piece != pieces.begin()) --piece;
        for (; piece != pieces.end() && bytes.size() < length; ++piece) {
            const std::uint64_t skip = offset + bytes.size() - piece->offset;
            if (skip >= piece->size_bytes) continue;
            const std::uint64_t count = std::min(length - bytes.size(), piece->size_bytes - skip);
            auto part = objects_->get(tail_piece_name(name, piece->offset), skip, count);
            if (!part) {
                std::lock_guard lock(mutex_);
                pieces_.erase(name);
                return part;
            }
            append(bytes, *part);
            if (part->size() < count) break;
        }
        return bytes;
    }

    std::unique_ptr<ObjectStore> objects_;
    std::mutex mutex_;
    std::map<std::string, Pieces> pieces_;  // of tails that were looked at
};

}  // namespace

std::string tail_piece_name(const std::string& tail_path, std::uint64_t offset) {
    char digits[kOffsetDigits + 2];
    std::snprintf(digits, sizeof digits, "/%016llx", static_cast<unsigned long long>(offset));
    return tail_path + digits;
}

std::optional<TailPieceName> parse_tail_piece_name(std::string_view name) {
    if (name.size() <= kInTail.size() + kOffsetDigits) return {};
    const std::string_view path = name.substr(0, name.size() - kOffsetDigits);
    if (!path.ends_with(kInTail)) return {};
    const std::string_view digits = name.substr(path.size());
    if (digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) return {};
    TailPieceName piece{std::string(path.substr(0, path.size() - 1))};
    auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), piece.offset, 16);
    if (error != std::errc{} || end != digits.data() + digits.size()) return {};
    return piece;
}

std::string encode_tier_name(const std::string& name) {
    return std::string(kTierNameMagic) + name + "\n";
}

Result<std::optional<std::string>> read_tier_name(ObjectStore& tier) {
    const std::string object(kTierNameObject);
    auto bytes = tier.get(object, 0, kTierNameBytesMax);
    if (!bytes && bytes.error().code == Errc::not_found) return std::optional<std::string>{};
    if (!bytes) return fail(std::move(bytes).error());
    std::string_view text = as_text(*bytes);
    const bool is_framed = text.size() > kTierNameMagic.size() + 1 &&
                           text.starts_with(kTierNameMagic) && text.ends_with('\n');
    if (is_framed)
        text = text.substr(kTierNameMagic.size(), text.size() - kTierNameMagic.size() - 1);
    if (!is_framed || text.find_first_not_of(kTierNameCharacters) != std::string_view::npos)
        return fail(Errc::corrupt, tier.url() + "/" + object + " does not say a tier's name",
                    "copy it back, or make the tier anew in an empty place");
    return std::optional<std::string>(text);
}

std::unique_ptr<ObjectStore> make_tier_store(std::unique_ptr<ObjectStore> objects) {
    return std::make_unique<TierStore>(std::move(objects));
}

Result<std::string> directory_of_url(const std::string& url) {
    constexpr std::string_view kScheme = "file://";
    const std::string hint =
        "a directory by its absolute path, with three slashes: file:///var/lib/walvault";
    if (!url.starts_with(kScheme))
        return fail(Errc::invalid_argument,
                    "it does not begin with file://, and a repository lies in a directory", hint);
    std::string root = url.substr(kScheme.size());
    while (root.size() > 1 && root.back() == '/')
        root.pop_back();
    const bool climbs = (root + '/').find("/../") != std::string::npos;
    const bool strange =
        root.find('\0') != std::string::npos || root.find_first_of("?#%") != std::string::npos;
    if (root.size() < 2 || root.front() != '/' || climbs || strange)
        return fail(Errc::invalid_argument, "it does not name a directory by its absolute path",
                    hint);
    return root;
}

Result<TierPlace> parse_tier_url(const std::string& url) {
    if (url.starts_with("s3://")) {
        WV_TRY(S3Options options, parse_s3_url(url));
        std::string plain = "s3://" + options.bucket;
        if (!options.prefix.empty()) plain += "/" + options.prefix;
        return TierPlace{std::move(plain), std::move(options)};
    }
    auto root = directory_of_url(url);
    if (root) return TierPlace{"file://" + *root, {}};
    return fail(Errc::invalid_argument, "it names neither a directory nor a bucket",
                "file:///absolute/path or s3://bucket/prefix");
}

unsigned objects_at_once(const TierPlace& place) {
    constexpr unsigned kUnlimited = 4;
    constexpr unsigned kPrepared = 2;
    if (!place.bucket) return 1;
    return (place.bucket->concurrency == 0 ? kUnlimited : place.bucket->concurrency) + kPrepared;
}

Result<std::unique_ptr<ObjectStore>> open_tier_objects(FileSystem& files, const TierPlace& place) {
    if (place.bucket) {
        WV_TRY(std::unique_ptr<ObjectStore> bucket, make_s3_store(files, *place.bucket));
        return bucket;
    }
    WV_TRY(std::string root, directory_of_url(place.url));
    return make_directory_store(files, std::move(root));
}

Result<std::unique_ptr<ObjectStore>> open_tier_store(FileSystem& files, const TierPlace& place) {
    WV_TRY(auto objects, open_tier_objects(files, place));
    return make_tier_store(std::move(objects));
}

}  // namespace walvault::storage
