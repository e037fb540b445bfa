// JournalSource: the files of one journal as a reader of the repository has them: packs, and open
// tails as they were scanned. Made by RepositoryView::journal_source(), which outlives it.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "storage/index_journal.h"
#include "storage/journal_writer.h"
#include "storage/pack_reader.h"

namespace walvault::storage {

// What a view lends.
struct JournalHost {
    ObjectStore& store;
    const Keyring& keyring;
    Index& index;
    bool is_tier = false;
    std::function<Result<>()> catch_up;  // brings the index to the head of the ledger
};

struct JournalFile {
    pb::PackInfo info;
    std::shared_ptr<const PackReader> tail;  // of an open one; null: a pack
};

// The transactions of a footer that are cut into pieces. A chain is named by the frame with its
// commit; -1: none.
struct JournalChains {
    explicit JournalChains(const pb::PackFooter& footer);
    std::vector<int> goes_on_of;  // of what each frame begins inside of
    std::vector<int> open_of;     // of what each frame ends inside of
    std::vector<int> first_of;    // by name: the frame that it begins in
};

class JournalSource {
public:
    JournalSource(JournalHost host, const Id16& journal) : host_(std::move(host)), id_(journal) {}

    // Lists files anew. Errors: corrupt, io.
    Result<> refresh();
    // In the order of LSNs.
    const std::vector<JournalFile>& files() const { return files_; }
    // Errors: corrupt where a tail cannot be read back, or not all that was synced: behind what is
    // listed.
    const std::optional<Error>& damage() const { return damage_; }
    Lsn end_lsn() const { return end_lsn_; }
    std::int64_t covered_until_us() const { return covered_until_us_; }
    Result<std::vector<pb::JournalGap>> gaps();
    IndexJournal& index() { return host_.index.journals(); }
    const Id16& id() const { return id_; }
    ObjectStore& store() { return host_.store; }

    // The last ones stay open.
    Result<std::shared_ptr<const PackReader>> open(const JournalFile& file);

private:
    Result<> add_tail(const OpenTail& tail, std::optional<Lsn> next_start);

    JournalHost host_;
    Id16 id_;
    std::vector<JournalFile> files_;
    std::optional<Error> damage_;
    Lsn end_lsn_;
    std::int64_t covered_until_us_ = 0;
    std::list<std::shared_ptr<const PackReader>> recent_;
};

// Open tails of the journals of a cluster; of one that cannot be read what the ledger says.
Result<std::vector<pb::PackInfo>> journal_tails(const JournalHost& host,
                                                const std::string& cluster);

// The journals of a cluster with what open tails add.
Result<std::vector<JournalRecord>> read_journals(const JournalHost& host,
                                                 const std::string& cluster);

}  // namespace walvault::storage
