// IndexRetention: the part of the index that knows what retention has condemned and deleted, and
// where.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "storage/index.h"

namespace walvault::storage {

bool is_of_retention(const pb::LedgerEntry& entry);

// Keys of the state family: place/<place> -> sequence of the entry that added it;
// formerplace/<place>
// -> ""; fate/<path> and
// basefate/<cluster>/<id> -> Fate; condemned/<place>/<path> -> ""; deleted/<place>/<path> ->
// sequence of the entry; expired/<place>/<history> -> LSN. Reads may be called from any thread.
//
// A place has everything that the ledger names but what was condemned there; a tier begins with
// what the repository's directory has when it is added. Only what is deleted at all places leaves
// the index.
class IndexRetention {
public:
    explicit IndexRetention(IndexStore& store) : store_(store) {}

    // Reads see only what lies at `place`; before, what lies anywhere.
    void show_place(const std::string& place) { shown_place_ = place; }
    // For who must still read what others do not see any more.
    void show_condemned() { shows_condemned_ = true; }

    // At any place: such a pack's chunks are not shared by new bases.
    Result<bool> is_condemned(const std::string& path) const;
    // Whether reads of the index leave the pack, or the base, out.
    Result<bool> hides(const std::string& path) const;
    Result<bool> hides_base(const std::string& cluster, const std::string& backup_id) const;
    Result<bool> is_base_condemned(const std::string& cluster, const std::string& backup_id,
                                   const std::string& place) const;
    // Tiers, in the order of their names; the repository's directory is none.
    Result<std::vector<std::string>> tiers() const;
    // A name that was a tier's and is none any more: what the ledger says of it was of that one.
    Result<bool> was_removed(const std::string& place) const;
    // Not deleted there yet, by path, until `sink` says false.
    Result<> each_condemned(const std::string& place,
                            const std::function<bool(CondemnedThere&)>& sink) const;
    Result<std::vector<CondemnedThere>> condemned(const std::string& place) const;
    // The ledger entry that condemned the pack at `place`; nothing if it is kept there.
    Result<std::optional<std::uint64_t>> condemned_by(const std::string& path,
                                                      const std::string& place) const;
    // Entered as deleted there, with objects that may still be there.
    Result<std::vector<std::string>> deleted_paths(const std::string& place) const;
    // WAL of the history itself was condemned up to here at all places that are shown; zero: none
    // was.
    Result<Lsn> expired_until(const Id16& history) const;

    // Within the batch of RocksIndex::apply().
    Result<> apply_condemned(const pb::LedgerEntry& entry);
    Result<> apply_place_added(const pb::LedgerEntry& entry);
    // The packs that nothing is left of by this.
    Result<std::vector<pb::PackInfo>> apply_place_removed(const pb::PlaceRemoved& removed);
    // The pack that it was, where no place has it any more; nothing where it is condemned at none.
    Result<std::optional<pb::PackInfo>> apply_deleted(const pb::PackDeleted& deleted,
                                                      std::uint64_t sequence,
                                                      const Footers& footers);
    Result<> apply_finished(const pb::DeletionsFinished& finished);

private:
    Result<std::optional<pb::Fate>> fate(const std::string& key) const;
    Result<bool> hides_fated(const pb::Fate& fate) const;
    Result<std::vector<std::string>> places() const;
    Result<Lsn> expired_at(const std::string& place, const Id16& history) const;
    Result<> condemn_bases(const pb::LedgerEntry& entry);
    Result<> forget(const pb::PackInfo& pack, const Footers& footers);
    Result<> remove_wal(const pb::PackInfo& pack);
    Result<> remove_marks(const pb::PackInfo& pack);
    Result<> remove_chunks(const pb::PackInfo& pack, const Footers& footers);

    IndexStore& store_;
    std::optional<std::string> shown_place_;
    bool shows_condemned_ = false;
};

}  // namespace walvault::storage
