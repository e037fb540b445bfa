// Index: the RocksDB view of ledger and pack footers. Never the only copy of anything.
//
// Column families: state (watermark, clusters, histories, gaps, open tails, witnesses), wal
// (history, start LSN -> pack), clock (history, largest commit time so far, start LSN -> nothing:
// the first pack with a commit later than T is one seek away), marks, chunks (content id -> place),
// packs (file id -> pack), backups. Keys: docs/formats.md.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/repository.pb.h"
#include "storage/index_store.h"
#include "storage/ledger.h"
#include "storage/repository_view.h"

namespace walvault::storage {

struct OpenTail {
    pb::TailOpened opened;
    std::uint32_t synced_frames =
        0;  // the witness: frames known to be synced, 0 when none was noted
};

// What the ledger says went wrong with a cluster.
struct Troubles {
    std::uint64_t failed_backups = 0;
    WallTime last_failed_backup{};
    // What the last `verify` of the repository found damaged: of all (chunks), or at least that
    // many (wal).
    std::uint64_t damaged = 0;
};

using Footers = std::vector<const pb::PackFooter*>;
class IndexHolds;
class IndexRetention;
class IndexJournal;

// Reads may be called from any thread; apply() and note_*() by one at a time.
class Index {
public:
    // Read and write; created when missing. Errors: corrupt (RocksDB refuses it), busy, io.
    static Result<std::unique_ptr<Index>> open(const std::string& directory,
                                               IndexHome& home = rocksdb_home());
    // Beside a writer. What apply() adds stays in memory. Errors: not_found, corrupt, io.
    static Result<std::unique_ptr<Index>> open_read_only(const std::string& directory,
                                                         IndexHome& home = rocksdb_home());
    // A new one that goes with the object. Errors: io, no_space.
    static Result<std::unique_ptr<Index>> open_scratch(const std::string& parent,
                                                       IndexHome& home = rocksdb_home());
    virtual ~Index() = default;

    virtual Result<LedgerHead> watermark() = 0;
    // One ledger entry, in order; `head` is its place. For closed packs their footers are given, in
    // the order of the entry; for a deleted base pack its footer where it can still be read, so
    // that no place of its chunks is left behind. Atomic. Errors: invalid_argument unless it is the
    // one after the watermark; io, no_space.
    virtual Result<> apply(const pb::LedgerEntry& entry, const LedgerHead& head,
                           const Footers& footers) = 0;
    // Packs that were applied with an empty footer in place of their own, and what makes good for
    // it.
    virtual Result<std::vector<pb::PackInfo>> unread_packs() = 0;
    virtual Result<> take_footer(const pb::PackInfo& pack, const pb::PackFooter& footer) = 0;
    // Remembers, not durably, that `synced_frames` frames of a tail are synced. Cheap.
    virtual Result<> note_synced(const std::string& tail_path, std::uint32_t synced_frames) = 0;
    virtual Result<> note_looked(const Id16& journal, Lsn lsn) = 0;
    // Everything applied so far is on disk. For shutdown.
    virtual Result<> sync() = 0;

    virtual Result<std::uint64_t> generation() = 0;
    virtual Result<Troubles> troubles(const std::string& cluster) = 0;
    virtual Result<std::vector<ClusterRecord>> clusters() = 0;
    virtual Result<std::vector<pb::HistoryOpened>> histories(const std::string& cluster) = 0;
    virtual Result<std::vector<pb::GapFound>> gaps(const std::string& cluster) = 0;
    // Of WAL, or of journals.
    virtual Result<std::vector<OpenTail>> open_tails(pb::PackKind kind = pb::PACK_KIND_WAL) = 0;
    virtual Result<std::optional<pb::HistoryOpened>> history(const Id16& id) = 0;
    // The one opened or resumed last: the one being followed.
    virtual Result<std::optional<Id16>> current_history(const std::string& cluster) = 0;
    // The history file of `timeline` as it was stored for `history`.
    virtual Result<std::optional<std::string>> timeline_history(const Id16& history,
                                                                TimelineId timeline) = 0;
    virtual Result<std::vector<pb::BackupInfo>> backups(const std::string& cluster) = 0;
    // Started and neither completed nor failed.
    virtual Result<std::vector<pb::BackupStarted>> unfinished_backups() = 0;

    // The WAL pack that holds `lsn`, or nothing.
    virtual Result<std::optional<pb::PackInfo>> wal_pack_at(const Id16& history, Lsn lsn) = 0;
    virtual Result<std::optional<pb::PackInfo>> last_wal_pack(const Id16& history) = 0;
    // Largest commit or abort time in the WAL packs of the history; 0 for none.
    virtual Result<std::int64_t> largest_at_us(const Id16& history) = 0;
    // The latest proof of quiet in its packs and in tails that held nothing else; 0 for none.
    virtual Result<std::int64_t> covered_until_us(const Id16& history) = 0;
    // The first WAL pack with a transaction later than `at_us`, or nothing.
    virtual Result<std::optional<pb::PackInfo>> first_pack_later_than(const Id16& history,
                                                                      std::int64_t at_us) = 0;
    // WAL packs that end after `from`, in order; `sink` returns false to stop. Backwards with
    // `reverse`, then from the last pack that starts before `from`.
    virtual Result<> each_wal_pack(const Id16& history, Lsn from, bool reverse,
                                   const std::function<bool(const pb::PackInfo&)>& sink) = 0;
    virtual Result<std::vector<pb::MarkEntry>> marks(const Id16& history, std::int64_t since_us,
                                                     std::int64_t until_us) = 0;
    virtual Result<std::optional<ChunkPlace>> chunk(const Id32& content_id) = 0;
    virtual Result<std::optional<pb::PackInfo>> pack(const Id16& file_id) = 0;  // all but WAL packs
    virtual Result<std::vector<pb::PackInfo>> base_packs(const std::string& cluster) = 0;
    // Condemned packs count until they are deleted.
    virtual Result<RepositoryView::Totals> totals(const std::string& cluster) = 0;
    virtual IndexJournal& journals() = 0;
    // What retention has condemned and deleted. Packs that it condemned are left out by all of the
    // above but pack() and chunk(), which marks them.
    virtual IndexRetention& retention() = 0;
    virtual const IndexHolds& holds() = 0;
    // Entries of retention change nothing from now on: for who works by what there was.
    virtual void freeze_retention() = 0;
};

}  // namespace walvault::storage
