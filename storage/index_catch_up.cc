#include "storage/index_catch_up.h"

#include <algorithm>

#include "base/log.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

namespace {

// Empty where the pack is missing or damaged, or its sectors are.
Result<pb::PackFooter> footer_of(ObjectStore& store, const Keyring& keyring,
                                 const pb::PackInfo& pack) {
    auto reader = PackReader::open(store, pack, keyring);
    if (reader) return (*reader)->footer();
    Errc code = reader.error().code;
    if (code != Errc::corrupt && code != Errc::not_found && code != Errc::io)
        return fail(reader.error());
    log::error("store.pack_damaged", reader.error().message, {{"pack", pack.path()}});
    return pb::PackFooter();
}

// Packs that could not be read when they were applied: what is whole again counts from now on.
Result<> read_unread_packs(Index& index, ObjectStore& store, const Keyring& keyring) {
    WV_TRY(auto packs, index.unread_packs());
    for (const pb::PackInfo& pack : packs) {
        auto reader = PackReader::open(store, pack, keyring);
        if (!reader) continue;
        WV_CHECK(index.take_footer(pack, (*reader)->footer()));
        log::info("store.pack_whole_again", "it is in the index now", {{"pack", pack.path()}});
    }
    return {};
}

Result<> apply_entry(Index& index, ObjectStore& store, const Keyring& keyring,
                     const pb::LedgerEntry& entry, const LedgerHead& head) {
    if (!entry.has_pack_closed()) return index.apply(entry, head, {});
    std::vector<const pb::PackInfo*> packs{&entry.pack_closed().pack()};
    for (const pb::PackInfo& pack : entry.pack_closed().further())
        packs.push_back(&pack);
    std::vector<pb::PackFooter> read(packs.size());
    Footers footers;
    for (std::size_t i = 0; i < packs.size(); ++i) {
        WV_TRY(read[i], footer_of(store, keyring, *packs[i]));
        footers.push_back(&read[i]);
    }
    return index.apply(entry, head, footers);
}

}  // namespace

Result<LedgerHead> catch_up(Index& index, ObjectStore& store, const Id16& repository_id,
                            const LedgerKeys& keys, const Keyring& keyring) {
    WV_CHECK(read_unread_packs(index, store, keyring));
    WV_TRY(LedgerHead from, index.watermark());
    // The hash of an entry is told by the one after it, so each is applied one step late.
    std::optional<pb::LedgerEntry> held;
    auto take = [&](const pb::LedgerEntry& entry) -> Result<> {
        if (held) {
            LedgerHead head{held->sequence(), {}};
            std::copy_n(as_bytes(entry.previous_hash()).begin(),
                        std::min(entry.previous_hash().size(), head.hash.size()),
                        head.hash.begin());
            WV_CHECK(apply_entry(index, store, keyring, *held, head));
        }
        held = entry;
        return {};
    };
    WV_TRY(LedgerHead head, read_ledger(store, repository_id, keys, from, true, take));
    if (held) WV_CHECK(apply_entry(index, store, keyring, *held, head));
    return head;
}

}  // namespace walvault::storage
