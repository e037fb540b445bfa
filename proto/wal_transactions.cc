#include "proto/wal_transactions.h"

#include <algorithm>

namespace walvault {
namespace {

constexpr std::size_t kTransactionsMax = 65'536;
constexpr std::size_t kFilesPerTransactionMax = 64;
// Over all transactions, so that many small ones cannot take more memory than a few large ones.
constexpr std::size_t kFilesMax = 262'144;
constexpr std::size_t kCreatedMax = 262'144;

}  // namespace

OpenTransactions::Transaction* OpenTransactions::find_or_add(Xid xid) {
    if (last_ != nullptr && last_xid_ == xid) return last_;
    auto at = transactions_.find(xid);
    if (at == transactions_.end()) {
        if (transactions_.size() >= kTransactionsMax) return nullptr;
        at = transactions_.try_emplace(xid).first;
    }
    last_xid_ = xid;
    last_ = &at->second;
    return last_;
}

void OpenTransactions::add_file_rows(Transaction& transaction, const RelationFile& file,
                                     std::uint64_t rows) {
    auto& files = transaction.files;
    for (std::size_t i = 0; i < files.size(); ++i) {
        if (files[i].file != file) continue;
        files[i].rows += rows;
        // The busiest file is found first the next time.
        if (i > 0 && files[i].rows > files[i - 1].rows) std::swap(files[i], files[i - 1]);
        return;
    }
    if (files.size() >= kFilesPerTransactionMax || file_count_ >= kFilesMax) return;
    files.push_back({file, rows});
    ++file_count_;
}

void OpenTransactions::add_rows(Xid xid, const RelationFile& file, const RowChanges& rows) {
    Transaction* transaction = find_or_add(xid);
    if (transaction == nullptr) return;
    transaction->rows.inserted_rows += rows.inserted_rows;
    transaction->rows.updated_rows += rows.updated_rows;
    transaction->rows.deleted_rows += rows.deleted_rows;
    add_file_rows(*transaction, file, rows.inserted_rows + rows.updated_rows + rows.deleted_rows);
}

void OpenTransactions::add_created(Xid xid, const RelationFile& file) {
    if (created_count_ >= kCreatedMax) return;
    Transaction* transaction = find_or_add(xid);
    if (transaction == nullptr) return;
    transaction->created.push_back(file);
    ++created_count_;
}

void OpenTransactions::mark_prepared(Xid xid) {
    auto at = transactions_.find(xid);
    if (at != transactions_.end()) at->second.prepared = true;
}

void OpenTransactions::release(const Transaction& transaction) {
    file_count_ -= transaction.files.size();
    created_count_ -= transaction.created.size();
}

void OpenTransactions::finish(Xid xid, std::span<const Xid> subtransactions, WalFinding& finding) {
    Transaction sum;
    auto take = [&](Xid part) {
        auto at = transactions_.find(part);
        if (at == transactions_.end()) return;
        Transaction& from = at->second;
        sum.rows.inserted_rows += from.rows.inserted_rows;
        sum.rows.updated_rows += from.rows.updated_rows;
        sum.rows.deleted_rows += from.rows.deleted_rows;
        release(from);
        for (const FileRows& file : from.files)
            add_file_rows(sum, file.file, file.rows);
        finding.created.insert(finding.created.end(), from.created.begin(), from.created.end());
        transactions_.erase(at);
    };
    last_ = nullptr;
    take(xid);
    for (Xid subtransaction : subtransactions)
        take(subtransaction);
    finding.inserted_rows = sum.rows.inserted_rows;
    finding.updated_rows = sum.rows.updated_rows;
    finding.deleted_rows = sum.rows.deleted_rows;
    auto most =
        std::max_element(sum.files.begin(), sum.files.end(),
                         [](const FileRows& a, const FileRows& b) { return a.rows < b.rows; });
    if (most != sum.files.end()) finding.most_changed = most->file;
    file_count_ -= sum.files.size();  // counted by add_file_rows
}

void OpenTransactions::forget(Xid xid) {
    auto at = transactions_.find(xid);
    if (at == transactions_.end()) return;
    last_ = nullptr;
    release(at->second);
    transactions_.erase(at);
}

void OpenTransactions::forget_unprepared() {
    last_ = nullptr;
    for (auto at = transactions_.begin(); at != transactions_.end();) {
        if (at->second.prepared) {
            ++at;
            continue;
        }
        release(at->second);
        at = transactions_.erase(at);
    }
}

}  // namespace walvault
