// IndexRetention: the part of the index that knows what retention has condemned and deleted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "storage/index.h"

namespace walvault::storage {

bool is_of_retention(const pb::LedgerEntry& entry);

// Keys of the state family: condemned/<path> -> CondemnedPack, deleted/<path> -> sequence of the
// entry, expired/<history> -> LSN. Reads may be called from any thread.
class IndexRetention {
public:
    explicit IndexRetention(IndexStore& store) : store_(store) {}

    // For who must still read what others do not see any more.
    void show_condemned() { shows_condemned_ = true; }
    Result<bool> is_condemned(const std::string& path) const;
    // Whether reads of the index leave the pack out.
    Result<bool> hides(const std::string& path) const;
    // Not deleted yet, by path.
    Result<std::vector<pb::CondemnedPack>> condemned() const;
    // Entered as deleted, with objects that may still be there.
    Result<std::vector<std::string>> deleted_paths() const;
    // WAL of the history itself was condemned up to here; zero: none was.
    Result<Lsn> expired_until(const Id16& history) const;

    // Within the batch of RocksIndex::apply().
    Result<> apply_condemned(const pb::LedgerEntry& entry);
    // The pack that it was; nothing where none of this path is condemned.
    Result<std::optional<pb::PackInfo>> apply_deleted(const pb::PackDeleted& deleted,
                                                      std::uint64_t sequence,
                                                      const Footers& footers);
    Result<> apply_finished(const pb::DeletionsFinished& finished);

private:
    Result<> remove_wal(const pb::PackInfo& pack);
    Result<> remove_marks(const pb::PackInfo& pack);
    Result<> remove_chunks(const pb::PackInfo& pack, const Footers& footers);

    IndexStore& store_;
    bool shows_condemned_ = false;
};

}  // namespace walvault::storage
