#include "proto/backup_manifest.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "proto/archive_path.h"

namespace walvault {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kFileObjectBytesMax = 64_KiB;
constexpr std::size_t kSkeletonBytesMax = 1_MiB;
constexpr std::size_t kLineBytesMax = 1_MiB;
constexpr unsigned kDepthMax = 8;
constexpr char kVersionKey[] = "PostgreSQL-Backup-Manifest-Version";

tl::unexpected<Error> damaged(const std::string& what) {
    return fail(Errc::corrupt, "the backup manifest " + what);
}

bool take_string(const Json& object, const char* key, std::string& value) {
    auto at = object.find(key);
    if (at == object.end() || !at->is_string()) return false;
    value = at->get_ref<const std::string&>();
    return true;
}
bool take_unsigned(const Json& object, const char* key, std::uint64_t& value) {
    auto at = object.find(key);
    if (at == object.end() || !at->is_number_unsigned()) return false;
    value = at->get<std::uint64_t>();
    return true;
}
bool take_hex(const Json& object, const char* key, ByteBuffer& value) {
    std::string text;
    if (!take_string(object, key, text) || text.size() % 2 != 0) return false;
    value.resize(text.size() / 2);
    return from_hex(text, value);
}

Result<BackupManifestFile> read_file_object(std::string_view text) {
    const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return damaged("has a file entry that is not a JSON object");
    BackupManifestFile file;
    ByteBuffer encoded_path;
    if (take_hex(object, "Encoded-Path", encoded_path))
        file.path = as_text(encoded_path);
    else if (!take_string(object, "Path", file.path))
        return damaged("has a file entry without a path");
    if (!is_safe_relative_path(file.path))
        return damaged("names the path \"" + file.path.substr(0, 128) +
                       "\", which is not a plain relative path");
    if (!take_unsigned(object, "Size", file.size_bytes))
        return damaged("has no size for " + file.path);
    if (object.contains("Checksum-Algorithm") &&
        (!take_string(object, "Checksum-Algorithm", file.checksum_algorithm) ||
         !take_hex(object, "Checksum", file.checksum)))
        return damaged("has a checksum for " + file.path + " that cannot be read");
    return file;
}

Result<unsigned> read_version(const Json& manifest) {
    std::uint64_t version = 0;
    if (!take_unsigned(manifest, kVersionKey, version))
        return damaged("does not begin with its version");
    if (version != 1 && version != 2)
        return fail(Errc::unsupported, "the backup manifest has version " +
                                           std::to_string(version) + ", this build knows 1 and 2");
    return static_cast<unsigned>(version);
}

Result<BackupManifestWalRange> read_wal_range(const Json& object) {
    BackupManifestWalRange range;
    std::uint64_t timeline = 0;
    std::string start;
    std::string end;
    if (!object.is_object() || !take_unsigned(object, "Timeline", timeline) || timeline == 0 ||
        timeline > 0xFFFFFFFF || !take_string(object, "Start-LSN", start) ||
        !take_string(object, "End-LSN", end))
        return damaged("has a WAL range that cannot be read");
    range.timeline = static_cast<TimelineId>(timeline);
    auto start_lsn = parse_lsn(start);
    auto end_lsn = parse_lsn(end);
    if (!start_lsn || !end_lsn || *end_lsn < *start_lsn)
        return damaged("has a WAL range that cannot be read");
    range.start_lsn = *start_lsn;
    range.end_lsn = *end_lsn;
    return range;
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

// Cuts each element of the array "Files" out of the text and has it parsed by itself; what is left,
// the skeleton, is small and parsed at the end. Only strings and nesting are followed here.
struct BackupManifestReader::State {
    State(OnFile with_file, Sha256 with_sha256)
        : on_file(std::move(with_file)), sha256(std::move(with_sha256)) {}

    Result<> take(char c);
    Result<> take_in_string(char c);
    Result<> take_between_files(char c);
    Result<> open_nested(char c);
    Result<> close_nested(char c);
    Result<> keep(char c);
    Result<> begin_files();
    Result<> hash(ByteSpan bytes);

    OnFile on_file;
    Sha256 sha256;
    std::string skeleton;
    std::string file_object;
    std::string key;  // the last string directly inside the manifest object
    unsigned depth = 0;
    bool in_string = false;
    bool after_backslash = false;
    bool in_files = false;
    bool had_files = false;
    bool comma_allowed = false;
    bool file_allowed = false;
    std::uint64_t file_count = 0;
    // From after the second-last newline: the manifest's checksum covers all lines but the last.
    ByteBuffer unhashed;
};

Result<> BackupManifestReader::State::keep(char c) {
    const bool in_file_object = in_files && depth >= 3;
    std::string& text = in_file_object ? file_object : skeleton;
    if (text.size() >= (in_file_object ? kFileObjectBytesMax : kSkeletonBytesMax))
        return damaged("has an entry of more than " + std::to_string(text.size()) + " bytes");
    text += c;
    return {};
}

Result<> BackupManifestReader::State::begin_files() {
    if (had_files) return damaged("lists its files twice");
    had_files = true;
    in_files = true;
    file_allowed = true;
    comma_allowed = false;
    // A version that this build does not know is refused before any file of it is believed.
    const Json head = Json::parse(skeleton + "]}", nullptr, false);
    if (!head.is_object()) return damaged("is not JSON before its files");
    WV_TRY([[maybe_unused]] unsigned version, read_version(head));
    return {};
}

Result<> BackupManifestReader::State::open_nested(char c) {
    if (++depth > kDepthMax)
        return damaged("is nested deeper than " + std::to_string(kDepthMax) + " levels");
    if (in_files && depth == 3) file_object.clear();
    WV_CHECK(keep(c));
    if (depth == 2 && c == '[' && key == "Files") return begin_files();
    return {};
}

Result<> BackupManifestReader::State::close_nested(char c) {
    if (depth == 0) return damaged("closes more than it opens");
    WV_CHECK(keep(c));
    --depth;
    if (in_files && depth == 2) {
        WV_TRY(BackupManifestFile file, read_file_object(file_object));
        ++file_count;
        WV_CHECK(on_file(file));
    }
    if (in_files && depth == 1) in_files = false;
    return {};
}

Result<> BackupManifestReader::State::take_in_string(char c) {
    WV_CHECK(keep(c));
    if (after_backslash) {
        after_backslash = false;
    } else if (c == '\\') {
        after_backslash = true;
    } else if (c == '"') {
        in_string = false;
        return {};
    }
    if (depth == 1) key += c;
    return {};
}

Result<> BackupManifestReader::State::take_between_files(char c) {
    if (is_blank(c)) return {};
    if (c == ',' && comma_allowed) {
        comma_allowed = false;
        file_allowed = true;
        return {};
    }
    if (c == '{' && file_allowed) {
        comma_allowed = true;
        file_allowed = false;
        return open_nested(c);
    }
    if (c == ']' && (comma_allowed || file_count == 0)) return close_nested(c);
    return damaged("has something other than file entries in its list of files");
}

Result<> BackupManifestReader::State::take(char c) {
    if (in_string) return take_in_string(c);
    if (in_files && depth == 2) return take_between_files(c);
    switch (c) {
        case '"':
            in_string = true;
            if (depth == 1) key.clear();
            return keep(c);
        case '{':
        case '[':
            return open_nested(c);
        case '}':
        case ']':
            return close_nested(c);
        default:
            return keep(c);
    }
}

Result<> BackupManifestReader::State::hash(ByteSpan bytes) {
    append(unhashed, bytes);
    std::string_view text = as_text(unhashed);
    std::size_t last = text.rfind('\n');
    std::size_t before = last == std::string_view::npos || last == 0 ? std::string_view::npos
                                                                     : text.rfind('\n', last - 1);
    if (before != std::string_view::npos) {
        sha256(ByteSpan(unhashed).first(before + 1), false);
        unhashed.erase(unhashed.begin(),
                       unhashed.begin() + static_cast<std::ptrdiff_t>(before + 1));
    }
    if (unhashed.size() > kLineBytesMax)
        return damaged("has a line of more than " + std::to_string(kLineBytesMax) + " bytes");
    return {};
}

BackupManifestReader::BackupManifestReader(OnFile on_file, Sha256 sha256)
    : state_(std::make_unique<State>(std::move(on_file), std::move(sha256))) {}
BackupManifestReader::~BackupManifestReader() = default;

Result<> BackupManifestReader::feed(ByteSpan bytes) {
    // In pieces, so that what is held back stays small whatever the caller hands over.
    while (!bytes.empty()) {
        const ByteSpan piece = bytes.first(std::min<std::size_t>(bytes.size(), 64_KiB));
        bytes = bytes.subspan(piece.size());
        WV_CHECK(state_->hash(piece));
        for (char c : as_text(piece))
            WV_CHECK(state_->take(c));
    }
    return {};
}

Result<BackupManifestSummary> BackupManifestReader::finish() {
    State& state = *state_;
    const Json manifest = Json::parse(state.skeleton, nullptr, false);
    if (!manifest.is_object()) return damaged("is incomplete or is not JSON");
    BackupManifestSummary summary;
    WV_TRY(summary.version, read_version(manifest));
    if (!state.had_files) return damaged("has no list of files");
    if (summary.version >= 2 &&
        !take_unsigned(manifest, "System-Identifier", summary.system_identifier))
        return damaged("of version 2 has no system identifier");
    summary.file_count = state.file_count;
    auto ranges = manifest.find("WAL-Ranges");
    if (ranges == manifest.end() || !ranges->is_array()) return damaged("has no WAL ranges");
    for (const Json& object : *ranges) {
        WV_TRY(BackupManifestWalRange range, read_wal_range(object));
        summary.wal_ranges.push_back(range);
    }
    std::string written;
    Id32 stored;
    if (!take_string(manifest, "Manifest-Checksum", written) || !from_hex(written, stored))
        return damaged("has no checksum of itself");
    if (as_text(state.unhashed).find("\"Manifest-Checksum\"") == std::string_view::npos)
        return damaged("does not end with its checksum on a line of its own");
    const Id32 computed = state.sha256({}, true);
    if (computed != stored)
        return damaged("has the checksum " + to_hex(computed) + " instead of " + to_hex(stored));
    return summary;
}

}  // namespace walvault
