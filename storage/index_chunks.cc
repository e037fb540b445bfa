#include "storage/index_chunks.h"

#include "storage/index_keys.h"

namespace walvault::storage {
namespace {

using namespace index_keys;

Result<std::uint64_t> entered_by(const IndexStore& store, const std::string& file_id) {
    WV_TRY(auto value, store.get(Family::state, entered_key(file_id)));
    if (!value || value->size() != 8) return std::uint64_t{0};
    return load_be<std::uint64_t>(as_bytes(*value).data());
}

}  // namespace

void put_base_pack(IndexStore& store, const pb::PackInfo& pack, const pb::PackFooter& footer,
                   std::uint64_t sequence) {
    store.put(Family::packs, pack.file_id(), pack.SerializeAsString());
    store.put(Family::state, entered_key(pack.file_id()), numbered_key("", sequence));
    const Id16 file_id = id_from<16>(pack.file_id());
    for (const pb::FrameEntry& frame : footer.frames())
        if (!frame.content_id().empty())
            store.put(Family::chunks, frame.content_id(), encode_place(file_id, frame));
}

Result<> put_late_base_pack(IndexStore& store, const pb::PackInfo& pack,
                            const pb::PackFooter& footer) {
    const Id16 file_id = id_from<16>(pack.file_id());
    WV_TRY(const std::uint64_t own, entered_by(store, pack.file_id()));
    store.put(Family::packs, pack.file_id(), pack.SerializeAsString());
    for (const pb::FrameEntry& frame : footer.frames()) {
        if (frame.content_id().empty()) continue;
        WV_TRY(auto known, store.get(Family::chunks, frame.content_id()));
        if (known) {
            WV_TRY(const std::uint64_t other,
                   entered_by(store, known->substr(0, pack.file_id().size())));
            if (other > own) continue;
        }
        store.put(Family::chunks, frame.content_id(), encode_place(file_id, frame));
    }
    return {};
}

}  // namespace walvault::storage
