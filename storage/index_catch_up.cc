#include "storage/index_catch_up.h"

#include <algorithm>
#include <map>

#include "base/log.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

namespace {

// Why packs could not be read, by path.
using Complaints = std::map<std::string, Error>;

// Empty where the pack is missing, damaged or archived, or its sectors are bad.
Result<pb::PackFooter> footer_of(ObjectStore& store, const Keyring& keyring,
                                 const pb::PackInfo& pack, Complaints& complaints) {
    auto reader = PackReader::open(store, pack, keyring);
    if (reader) return (*reader)->footer();
    Errc code = reader.error().code;
    if (code != Errc::corrupt && code != Errc::not_found && code != Errc::io &&
        code != Errc::archived)
        return fail(reader.error());
    complaints[pack.path()] = reader.error();
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
                     const pb::LedgerEntry& entry, const LedgerHead& head, Complaints& complaints) {
    if (!entry.has_pack_closed()) return index.apply(entry, head, {});
    std::vector<const pb::PackInfo*> packs{&entry.pack_closed().pack()};
    for (const pb::PackInfo& pack : entry.pack_closed().further())
        packs.push_back(&pack);
    std::vector<pb::PackFooter> read(packs.size());
    Footers footers;
    for (std::size_t i = 0; i < packs.size(); ++i) {
        WV_TRY(read[i], footer_of(store, keyring, *packs[i], complaints));
        footers.push_back(&read[i]);
    }
    return index.apply(entry, head, footers);
}

// Not of those that a later entry deleted.
Result<> tell_unread(Index& index, const Complaints& complaints) {
    WV_TRY(auto unread, index.unread_packs());
    std::uint64_t archived = 0;
    for (const pb::PackInfo& pack : unread) {
        auto found = complaints.find(pack.path());
        if (found == complaints.end()) continue;
        const Error& error = found->second;
        if (error.code == Errc::archived)
            ++archived;
        else
            log::error("store.pack_damaged", error.message, {{"pack", pack.path()}});
    }
    if (archived > 0)
        log::debug("store.packs_archived",
                   "what only these packs tell, as marks of the log, is not known before they are "
                   "thawed",
                   {{"packs", archived}});
    return {};
}

}  // namespace

Result<LedgerHead> catch_up(Index& index, ObjectStore& store, const Id16& repository_id,
                            const LedgerKeys& keys, const Keyring& keyring) {
    WV_CHECK(read_unread_packs(index, store, keyring));
    WV_TRY(LedgerHead from, index.watermark());
    // The hash of an entry is told by the one after it, so each is applied one step late.
    std::optional<pb::LedgerEntry> held;
    Complaints complaints;
    auto take = [&](const pb::LedgerEntry& entry) -> Result<> {
        if (held) {
            LedgerHead head{held->sequence(), {}};
            std::copy_n(as_bytes(entry.previous_hash()).begin(),
                        std::min(entry.previous_hash().size(), head.hash.size()),
                        head.hash.begin());
            WV_CHECK(apply_entry(index, store, keyring, *held, head, complaints));
        }
        held = entry;
        return {};
    };
    WV_TRY(LedgerHead head, read_ledger(store, repository_id, keys, from, true, take));
    if (held) WV_CHECK(apply_entry(index, store, keyring, *held, head, complaints));
    WV_CHECK(tell_unread(index, complaints));
    return head;
}

}  // namespace walvault::storage
