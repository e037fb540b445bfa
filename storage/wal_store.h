// WalStore: WAL of a history as one run of bytes and transactions, over the packs and scanned tails
// of its lineage.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "storage/lineage.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

// A pack or a tail: WAL [start_lsn, end_lsn) in frames. `end_lsn` may lie before the end of its
// last frame, where a lineage leaves an ancestor; `summary` is then of more than what counts.
struct WalSource {
    std::shared_ptr<const PackReader> reader;
    Lsn start_lsn;
    Lsn end_lsn;
    pb::WalSummary summary;
    bool is_cut = false;

    // Frames that begin before end_lsn.
    int frame_count() const;
    // The frame that holds `lsn`, or the last one before it; -1: all begin later.
    int frame_at(Lsn lsn) const;
};

// One thread at a time; blocking. Errors of every call: gap, corrupt, io, unavailable.
class WalStore {
public:
    WalStore(ObjectStore& store, const Keyring& keyring, Index& index)
        : store_(store), keyring_(keyring), index_(index) {}

    // Scanned tails, in LSN order within a history; replaces the ones before.
    void set_tails(std::vector<ScannedTail> tails);
    // `replace` is called with the path of a tail that is gone when it is read, and gives
    // set_tails() what stands for it, or lets the index have it. Without it such a tail is
    // not_found.
    void on_closed_tail(std::function<Result<>(const std::string& path)> replace) {
        replace_closed_tail_ = std::move(replace);
    }
    // Where what follows a tail in its history begins, in a pack or another tail; nothing: it is
    // the last. Up to there the tail was whole and synced.
    Result<std::optional<Lsn>> start_behind(const pb::TailOpened& opened);
    // Scans the tail at `path` as the continuation of what is stored. Damage is read twice before
    // it is believed.
    Result<ScannedTail> scan_continuation(const pb::TailOpened& opened, std::uint32_t witness);

    // The source that holds `lsn` in the lineage, or nothing.
    Result<std::optional<WalSource>> source_at(const Id16& history, Lsn lsn);
    // First byte not stored after the contiguous run from the history's own start; `none` while
    // nothing is.
    Result<Lsn> end_lsn(const Id16& history, Lsn none);
    // The latest proof of quiet of the history's own packs and tails; 0 for none.
    Result<std::int64_t> covered_until_us(const Id16& history);
    // Largest time of all transactions of the lineage; 0 for none.
    Result<std::int64_t> largest_at_us(const Id16& history);

    Result<> require_coverage(const Id16& history, Lsn from, Lsn to);
    Result<> read(const Id16& history, Lsn from, Lsn to,
                  const std::function<Result<>(ByteSpan)>& sink);
    // Where decoding must begin to have the record that `lsn` may lie in whole: a record start at
    // or before it, or the history's start; behind a hole, the start of the first page, which may
    // lie behind `lsn`.
    Result<Lsn> decode_start(const Id16& history, Lsn lsn);
    // Findings of records that start in [from, to), in order, until `sink` returns false.
    Result<> scan(const Id16& history, Lsn from, Lsn to,
                  const std::function<bool(const WalFinding&)>& sink);

    Result<std::optional<WalFinding>> first_transaction_after(const Id16& history, WallTime at);
    Result<std::optional<WalFinding>> first_transaction_from(const Id16& history, Lsn lsn);
    Result<std::optional<WalFinding>> last_commit_before(const Id16& history, Lsn lsn);
    Result<bool> has_commit_behind(const Id16& history, Lsn lsn);
    Result<std::vector<WalFinding>> find_xid(const Id16& history, Xid xid);
    Result<std::uint64_t> count_commits(const Id16& history, Lsn from, Lsn to);

private:
    using Findings = std::vector<WalFinding>;
    // Stretch by stretch: what one history of the lineage holds.
    Result<const std::vector<Stretch>*> stretches(const Id16& history);
    Result<std::optional<WalSource>> source_in(const Stretch& stretch, Lsn lsn);
    Result<std::vector<WalSource>> sources_where(
        const Stretch& stretch, const std::function<bool(const pb::WalSummary&)>& wanted);
    Result<Lsn> covered_until(const Stretch& stretch, Lsn at, Lsn to);
    Result<std::int64_t> largest_at_us_in(const Stretch& stretch);
    Result<std::optional<WalFinding>> first_transaction_after_in(const Id16& history,
                                                                 const Stretch& stretch,
                                                                 WallTime at);
    Result<std::optional<WalFinding>> next_transaction_after(const Id16& history,
                                                             const WalSource& source, WallTime at);
    Result<std::uint64_t> count_commits_in(const Stretch& stretch, Lsn from, Lsn to);

    Result<WalSource> open_source(const pb::PackInfo& pack);
    // `record` starts a record that ends in `source`.
    Result<Lsn> stored_record_start(const Id16& history, const WalSource& source, Lsn record);
    // True if WAL before it was stored and is not any more.
    Result<bool> begins_behind_hole(const Id16& history, const WalSource& source);
    Result<Lsn> frame_of_record_before(const Id16& history, Lsn at, Lsn lsn);
    // Transactions whose records end in one frame of `source`, before its end.
    Result<Findings> transactions_in(const Id16& history, const WalSource& source, int frame);
    Result<Findings> decode_transactions_in(const Id16& history, const WalSource& source,
                                            int frame);
    Result<> decode(const Id16& history, const FileHeader& header, Lsn from, Lsn to,
                    const std::function<bool(const WalFinding&)>& sink);
    Result<> replace_closed_tail(const std::string& path);
    const std::vector<WalSource>& tails_of(const Id16& history) const;

    // What was found last: a command asks for the same end of WAL more than once.
    struct Decoded {
        Id16 history = {};
        std::string path = {};
        int frame = -1;
        Lsn end_lsn = {};
        Findings found = {};
    };

    ObjectStore& store_;
    const Keyring& keyring_;
    Index& index_;
    std::function<Result<>(const std::string&)> replace_closed_tail_;
    std::map<Id16, std::vector<WalSource>> tails_;
    std::map<Id16, std::int64_t> tails_largest_at_us_;
    std::map<Id16, std::vector<Stretch>> lineages_;  // an opened history never changes its own
    std::map<Id16, std::int64_t> inherited_at_us_;   // of the ancestors' stretches
    std::list<WalSource> recent_;                    // opened packs, the last used first
    Decoded decoded_;
};

std::uint64_t transaction_count(const pb::WalSummary& summary);

// The ledger's word of a history, with what is stored of it.
Result<HistoryRecord> history_record(WalStore& wal, const pb::HistoryOpened& opened);

}  // namespace walvault::storage
