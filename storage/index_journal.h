// IndexJournal: journals in the index: which there are, where each ends, its packs, tables and
// snapshots.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "storage/index.h"

namespace walvault::storage {

class IndexJournal {
public:
    IndexJournal(IndexStore& store, IndexRetention& retention)
        : store_(store), retention_(retention) {}

    // In the order in which they were opened.
    Result<std::vector<pb::JournalOpened>> opened(const std::string& cluster);
    Result<std::optional<pb::JournalOpened>> journal(const Id16& id);
    struct End {
        Lsn lsn;  // what packs, ended tails and gaps say; an open tail may go on
        std::int64_t covered_until_us = 0;
    };
    Result<End> end_of(const Id16& id);
    Result<std::vector<pb::JournalGap>> gaps(const Id16& id);  // as they were found
    // Of all tables, or of one (0: all), as they were entered.
    Result<std::vector<pb::JournalTableLeft>> tables_left(const Id16& id, std::uint32_t table_oid);
    // The history of WAL that the last tail of a journal was opened in.
    Result<std::optional<Id16>> wal_history(const Id16& id);
    // As Repository::looked_until().
    Result<std::optional<Lsn>> looked_until(const Id16& id);
    // Where tails began and ended in which nothing happened, and which left no pack.
    Result<std::map<Lsn, Lsn>> quiet_stretches(const Id16& id);
    // Packs that end behind `from`, in the order of LSNs; but those that retention hides.
    Result<std::vector<pb::PackInfo>> packs(const Id16& id, Lsn from = {});
    // With the rows of snapshots: all that a cluster has of journals.
    Result<std::vector<pb::PackInfo>> all_packs(const std::string& cluster);
    // Changes by table, of all packs whose footers were read.
    Result<std::vector<pb::JournalSeen>> tables(const Id16& id);
    // Oldest first; of one table, or of all (0). But those with packs that retention hides.
    Result<std::vector<pb::StoredSnapshot>> snapshots(const Id16& id, std::uint32_t table_oid);

    // Inside of Index::apply().
    // JournalOpened, JournalGap and JournalTableLeft; nothing of other entries.
    Result<> apply(const pb::LedgerEntry& entry);
    void apply_tail(const pb::TailOpened& tail);  // of any kind
    void put_looked(const Id16& id, Lsn lsn);
    Result<> apply_abandoned(const pb::TailOpened& tail, const pb::TailAbandoned& abandoned);
    Result<> apply_closed(const pb::PackClosed& closed, const Footers& footers);
    void put_tables(const pb::PackInfo& pack, const pb::PackFooter& footer);
    void put_tables_read(const pb::PackInfo& pack, const pb::PackFooter& footer);
    Result<> forget(const pb::PackInfo& pack);

private:
    void apply_opened(const pb::LedgerEntry& entry);
    void apply_left(const pb::LedgerEntry& entry);
    Result<> apply_gap(const pb::LedgerEntry& entry);
    Result<> take_back(const pb::JournalGap& gap);
    Result<> remove_counts(const std::string& id, const std::set<std::uint64_t>& starts);
    Result<> cut_quiet_stretches(const std::string& id, std::uint64_t end);
    Result<> begin_by(const std::string& id, std::uint64_t lsn);
    void put_end(const std::string& id, End end);
    Result<> move_end(const std::string& id, std::uint64_t end, std::int64_t covered_until_us);

    IndexStore& store_;
    IndexRetention& retention_;
};

bool is_of_journal(pb::PackKind kind);

}  // namespace walvault::storage
