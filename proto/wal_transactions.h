// OpenTransactions: what the transactions that have not ended yet changed and created, bounded.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "proto/wal_decoder.h"

namespace walvault {

struct RowChanges {
    std::uint64_t inserted_rows = 0;
    std::uint64_t updated_rows = 0;
    std::uint64_t deleted_rows = 0;
};

class OpenTransactions {
public:
    void add_rows(Xid xid, const RelationFile& file, const RowChanges& rows);
    void add_created(Xid xid, const RelationFile& file);
    void mark_prepared(Xid xid);

    // Moves what is known of `xid` and its subtransactions into a finding and forgets them.
    void finish(Xid xid, std::span<const Xid> subtransactions, WalFinding& finding);
    void forget(Xid xid);
    // After a shutdown or a crash only prepared transactions are still open.
    void forget_unprepared();

    std::size_t count() const { return transactions_.size(); }

private:
    struct FileRows {
        RelationFile file;
        std::uint64_t rows = 0;
    };
    struct Transaction {
        RowChanges rows;
        std::vector<FileRows> files;
        std::vector<RelationFile> created;
        bool prepared = false;
    };
    Transaction* find_or_add(Xid xid);
    void add_file_rows(Transaction& transaction, const RelationFile& file, std::uint64_t rows);
    void release(const Transaction& transaction);

    std::unordered_map<Xid, Transaction> transactions_;
    Xid last_xid_ = 0;
    Transaction* last_ = nullptr;  // of last_xid_; nodes of the map do not move
    std::size_t file_count_ = 0;
    std::size_t created_count_ = 0;
};

}  // namespace walvault
