#include "storage/pack_rewrite.h"

#include <algorithm>

#include "storage/pack_reader.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

Result<> require_chunk(const Keyring& keyring, const PackReader& reader, int frame,
                       ByteSpan plain) {
    const DataKey* key = keyring.current(pb::KEY_PURPOSE_CONTENT_ID);
    if (key == nullptr)
        return fail(Errc::corrupt, "the keyring has no key for the names of chunks");
    const std::string& id = reader.footer().frames(frame).content_id();
    if (id_from<32>(id) == content_id(*key, plain)) return {};
    return fail(
        Errc::corrupt,
        reader.path() + ", frame " + std::to_string(frame) + " does not hold chunk " +
            to_hex(as_bytes(id)),
        "the pack stays as it is; `walvault verify --level chunks` says what else is wrong");
}

}  // namespace

Result<> PackRewrite::copy_from(const RewriteCandidate& source) {
    WV_TRY(auto reader, PackReader::open(stores_.packs, source.pack, stores_.keyring));
    const Id16 file_id = id_from<16>(source.pack.file_id());
    ByteBuffer plain;
    for (int i = 0; i < reader->frame_count(); ++i) {
        const pb::FrameEntry& entry = reader->footer().frames(i);
        if (entry.frame_number() >= source.live.size() || !source.live[entry.frame_number()])
            continue;
        const Id32 id = id_from<32>(entry.content_id());
        WV_TRY(auto place, stores_.index.chunk(id));
        if (!place || place->file_id != file_id || place->frame_number != entry.frame_number())
            continue;
        WV_CHECK(reader->read_frame(stores_.packs, i, plain));
        WV_CHECK(require_chunk(stores_.keyring, *reader, i, plain));
        FramePlace at;
        at.frame_number = writer_->next_frame_number();
        at.content_id = id;
        pb::FrameEntry copied;
        copied.set_frame_number(at.frame_number);
        copied.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
        copied.set_content_id(entry.content_id());
        WV_CHECK(writer_->append(writer_->cipher().seal(at, plain, level_), std::move(copied)));
    }
    return {};
}

Result<> PackRewrite::read_back() const {
    WV_TRY(auto reader, PackReader::open(stores_.directory, *info_, stores_.keyring));
    ByteBuffer plain;
    for (int i = 0; i < reader->frame_count(); ++i) {
        WV_CHECK(reader->read_frame(stores_.directory, i, plain));
        WV_CHECK(require_chunk(stores_.keyring, *reader, i, plain));
    }
    return {};
}

Result<> PackRewrite::copy() {
    for (const RewriteCandidate& source : sources_)
        WV_CHECK(copy_from(source));
    if (writer_->next_frame_number() == 0) return {};
    pb::PackInfo info;
    info.set_kind(pb::PACK_KIND_BASE);
    info.set_cluster(sources_.front().pack.cluster());
    // Of the oldest: who cannot read footers takes for a base all packs that are as old.
    info.set_backup_id(std::ranges::min(sources_, {}, [](const RewriteCandidate& source) {
                           return source.pack.backup_id();
                       }).pack.backup_id());
    WV_TRY(info_, writer_->finish(std::move(info)));
    return read_back();
}

std::vector<std::vector<RewriteCandidate>> rewrite_groups(
    const std::vector<RewriteCandidate>& sources) {
    std::vector<std::vector<RewriteCandidate>> groups;
    std::uint64_t bytes = 0, frames = 0;
    for (const RewriteCandidate& source : sources) {
        const auto live = static_cast<std::uint64_t>(std::ranges::count(source.live, true));
        const bool fits =
            !groups.empty() && groups.back().front().pack.cluster() == source.pack.cluster() &&
            bytes + source.live_bytes <= kBasePackBytes && frames + live <= kPackFramesMax;
        if (!fits) {
            groups.emplace_back();
            bytes = frames = 0;
        }
        bytes += source.live_bytes;
        frames += live;
        groups.back().push_back(source);
    }
    return groups;
}

}  // namespace walvault::storage
