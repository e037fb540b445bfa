// Repository: the writing side: lock, keyring, ledger, index, and the order in which they change.
//
// Order of every change: bytes synced under their final name, then the ledger entry synced, then
// the index. A crash between any two leaves something the next open() finishes or removes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "storage/index.h"
#include "storage/index_retention.h"
#include "storage/journal_writer.h"
#include "storage/lease.h"
#include "storage/ledger.h"
#include "storage/pack_rewrite.h"
#include "storage/pack_writer.h"
#include "storage/retention_survey.h"
#include "storage/tail_writer.h"
#include "storage/wal_store.h"

namespace walvault::storage {

struct RepositoryOptions {
    std::string host;  // for the ledger
    std::string version;
    int wal_level = 1;  // zstd
    int base_level = 1;
    int journal_level = 6;       // of packs; tails are sealed as their writer chooses
    bool rebuild_index = false;  // even if it looks whole
    IndexHome* index_home = &rocksdb_home();
    // Where packs are read that the directory does not have any more: a LayeredStore over it. Null:
    // nowhere.
    std::shared_ptr<ObjectStore> packs_store = nullptr;
};

// Of what was condemned at `place` what is to be deleted now.
struct DeletionOrder {
    std::string place = {};          // a tier; empty: the directory of this repository
    std::vector<Lease> leases = {};  // that are held there
    std::chrono::seconds grace{0};   // so long it has been condemned
    std::size_t most = 32;           // packs in one call
    // From which tiers packs were read back: needed from each that keeps what goes here.
    std::map<std::string, std::vector<std::string>> proved = {};
    // Only what was condemned by entries up to this one: a tier's readers see no later ones.
    std::uint64_t through_sequence = ~0ull;
    bool only_kept_elsewhere = false;  // what no tier keeps stays
};

// What delete_condemned() did, and what is left.
struct Deletions {
    std::uint64_t pack_count = 0;
    std::uint64_t bytes = 0;
    // Still there; unless there is more, of all.
    std::uint64_t condemned_count = 0;
    std::uint64_t condemned_bytes = 0;
    bool more = false;      // due, but there were too many for one call
    std::string waits_for;  // who or what keeps something that is due; empty: nobody
};

// One thread at a time; every call blocks for disk time. chunk(), content_key() and seal through
// ciphers may be used from any thread.
class Repository {
public:
    // Makes an empty one: directories, header, keyring, ledger. Does nothing if `root` already is a
    // repository of this key. Errors: refused if there is something else, wrong_key, io, no_space.
    static Result<> create(FileSystem& files, const std::string& root, const MasterKey& master,
                           const Clock& clock);

    // Takes the lock and claims a new writer's generation (a file that only one can create);
    // catches the index up or rebuilds it; finishes what a crash left: open tails become packs,
    // unfinished packs and backups go. Errors: busy (another agent), not_found, wrong_key, corrupt,
    // unsupported, io, no_space.
    static Result<std::unique_ptr<Repository>> open(FileSystem& files, const std::string& root,
                                                    const MasterKey& master, const Clock& clock,
                                                    const RepositoryOptions& options);
    ~Repository();

    const Id16& repository_id() const;
    std::uint64_t generation() const;
    // Nothing, while no later writer has claimed the repository. Asked before each ledger entry,
    // and after each sync of a tail before anything is acknowledged: what was synced before the
    // claim, the later writer finds. From any thread; one look at a directory entry. Errors: busy.
    Result<> require_writer() const;
    // The last entry of the ledger that the index has as well: what is asked of the index (keeps()
    // and others) holds for it. From any thread.
    std::uint64_t ledger_sequence() const;
    std::uint64_t index_rebuilds() const;  // of this open: 0 or 1
    const std::string& root() const;
    // Free on its file system, for an unprivileged user. From any thread. Errors: io.
    Result<std::uint64_t> available_bytes() const;

    // The cluster as it is known, added to the ledger when it is not. Errors: refused if it is
    // known under another system identifier or segment size; invalid_argument for a name that the
    // repository keeps for itself.
    Result<ClusterRecord> ensure_cluster(const ClusterRecord& cluster);
    std::optional<ClusterRecord> cluster(const std::string& name);
    // The history being followed (opened or resumed last), with its end; nothing before the first.
    Result<std::optional<HistoryRecord>> current_history(const std::string& cluster);
    Result<std::vector<HistoryRecord>> histories(const std::string& cluster);
    // A new one, followed from now on. `id` is made here; where it is a gap's other side, the gap
    // is entered too.
    Result<Id16> open_history(pb::HistoryOpened history, std::optional<pb::GapFound> gap = {});
    // Goes back to one that is known.
    Result<> resume_history(const std::string& cluster, const Id16& history,
                            const std::string& reason);
    // The file that the server gives for `timeline`, kept for this history. Errors: forked if
    // another one is kept for it already.
    Result<> record_timeline_history(const std::string& cluster, const Id16& history,
                                     TimelineId timeline, const std::string& content);
    Result<std::vector<pb::BackupInfo>> backups(const std::string& cluster);
    Result<std::vector<pb::GapFound>> gaps(const std::string& cluster);
    Result<RepositoryView::Totals> totals(const std::string& cluster);
    // What the ledger says went wrong, so that a restart does not forget it.
    using Troubles = storage::Troubles;
    Result<Troubles> troubles(const std::string& cluster);
    // Since it was opened; from any thread.
    struct Counts {
        std::uint64_t read_bytes = 0;
        std::uint64_t read_errors = 0;
        std::uint64_t ledger_errors = 0;
    };
    Counts counts() const;

    // Stored WAL of a history, for comparing and for priming a decoder.
    WalStore& wal();

    // Tails. plan_tail() touches no disk; frames may be sealed with its cipher at once.
    Result<std::shared_ptr<const TailPlan>> plan_tail(const HistoryRecord& history,
                                                      const ClusterRecord& cluster, Lsn start);
    // File, directory entry and ledger entry, all synced: WAL in it may be acknowledged after its
    // sync.
    Result<std::unique_ptr<TailWriter>> open_tail(std::shared_ptr<const TailPlan> plan,
                                                  const std::optional<Id16>& wal_history = {});
    // What the capture knows of a tail that it closes.
    struct TailContent {
        pb::PackFooter footer;          // its WAL frames and marks
        std::uint32_t frame_count = 0;  // with quiet frames
        Lsn end_lsn;
        pb::WalSummary summary;
    };
    // Makes a pack of it: in place where its frames are large, else rewritten into large ones. The
    // tail is gone or a pack when this returns. An empty one is removed.
    Result<> close_tail(std::unique_ptr<TailWriter> tail, TailContent content);
    // Lets go of a tail after a write or sync error; recover_tails() then sees to what it holds.
    void drop_tail(std::unique_ptr<TailWriter> tail);
    // Every tail in the ledger that is neither a pack nor held by a TailWriter is read back: its
    // whole frames become a pack, and the file goes. Called by open(), and again after a write or
    // sync error broke a tail. What had been synced and cannot be read is logged as an error; the
    // history then ends before it.
    Result<> recover_tails();
    Result<> note_synced(const std::string& tail_path, std::uint32_t synced_frames);

    // Base backups. The pack's frames hold chunks or manifest batches.
    Result<std::string> begin_backup(const std::string& cluster);  // the backup's id
    Result<std::unique_ptr<PackWriter>> begin_pack(pb::PackKind kind, const ClusterRecord& cluster,
                                                   const std::string& backup_id, unsigned number);
    // Finishes, enters it in the ledger and the index: from then on its chunks are shared.
    Result<pb::PackInfo> commit_pack(std::unique_ptr<PackWriter> pack, pb::PackInfo info);
    Result<> complete_backup(const pb::BackupInfo& backup);
    Result<> fail_backup(const std::string& cluster, const std::string& backup_id,
                         const std::string& reason);
    Result<bool> has_chunk(const Id32& content_id);  // from any thread
    const DataKey& content_key() const;              // from any thread

    // Journals. All that are known of a cluster, in the order in which they were opened.
    Result<std::vector<JournalRecord>> journals(const std::string& cluster);
    // A new one; `id` is made here. The keyring has a key of its class from then on.
    Result<Id16> open_journal(pb::JournalOpened journal);
    // The transactions between the edges are not in the journal and will not be; it ends at the
    // farther edge from then on. With left_end_lsn what it has behind the near edge is taken back:
    // readers see none of it any more, and the far edge may be before its end. Errors: unavailable
    // while a tail of it is open.
    Result<> enter_journal_gap(pb::JournalGap gap);
    Result<std::vector<pb::JournalGap>> journal_gaps(const Id16& journal);
    // The journal does not say all that happened to a table's rows, until its next snapshot.
    Result<> enter_table_left(pb::JournalTableLeft left);
    Result<std::vector<pb::JournalTableLeft>> tables_left(const Id16& journal);
    // Up to `lsn` what is published was looked at and nothing was amiss. Not in the ledger: an
    // index that is made anew knows none, and after a crash it may be an earlier one.
    Result<> note_looked(const Id16& journal, Lsn lsn);
    Result<std::optional<Lsn>> looked_until(const Id16& journal);
    // A new tail at the journal's end; file, directory entry and ledger entry, all synced. `start`:
    // the end of its tail before, where that is being closed; else journal.end_lsn. Errors: corrupt
    // where an earlier tail of it cannot be read (it is not known where the journal ends); io,
    // no_space.
    // `journal.wal_history` is entered with it.
    Result<std::unique_ptr<JournalTail>> open_journal_tail(const JournalRecord& journal,
                                                           const ClusterRecord& cluster,
                                                           TimelineId timeline, Lsn start);
    // Closing, first step: the tail takes no more frames, and what was not synced does not count.
    // Then run(), in any thread, then finish_closing(): ledger, index, and the tail is gone. The
    // next tail may be opened in between.
    Result<std::unique_ptr<JournalRewrite>> begin_closing(std::unique_ptr<JournalTail> tail);
    Result<> finish_closing(std::unique_ptr<JournalRewrite> rewrite);
    // Lets go of a tail after a write or sync error; recover_tails() then sees to what it holds.
    void drop_journal_tail(std::unique_ptr<JournalTail> tail);
    // The same of one whose closing failed.
    void release_journal_tail(const std::string& path);
    // The rows of a table; `taken` has its oid, the LSN, the time by the server's clock, and what
    // the catalogue said of it.
    Result<std::unique_ptr<SnapshotWriter>> begin_snapshot(const JournalRecord& journal,
                                                           const ClusterRecord& cluster,
                                                           TimelineId timeline,
                                                           pb::SnapshotTaken taken);
    // Finishes its packs and enters them: from then on the snapshot counts.
    Result<> take_snapshot(std::unique_ptr<SnapshotWriter> snapshot);
    // The newest snapshot of each table of a journal.
    Result<std::vector<pb::SnapshotTaken>> last_snapshots(const Id16& journal);

    // From here on the ledger speaks of the tier `place`; nothing happens where it does already.
    // `is_empty`: it has nothing of the ledger yet. Errors: refused if the ledger says that packs
    // lie on an empty one, or if the name was that of a tier that was removed.
    Result<> add_place(const std::string& place, bool is_empty);
    Result<std::vector<std::string>> tiers();  // that it speaks of, by name
    // What lies there does not count any more. Errors: not_found.
    Result<> remove_place(const std::string& place);
    // The ledger entry by which a pack is condemned at `place`; nothing if it is kept. From any
    // thread.
    Result<std::optional<std::uint64_t>> condemned_by(const std::string& path,
                                                      const std::string& place);
    // Whether the pack is known, and kept at `place`. From any thread.
    Result<bool> keeps(const pb::PackInfo& pack, const std::string& place);
    Result<bool> is_base_condemned(const std::string& cluster, const std::string& backup_id,
                                   const std::string& place);  // from any thread
    // From any thread.
    Result<> each_condemned(const std::string& place,
                            const std::function<bool(CondemnedThere&)>& sink);
    Result<std::vector<CondemnedThere>> condemned(const std::string& place);

    // Durable when it returns: from then on condemn() takes no survey that did not know of it.
    // Nothing says here that what it covers is still there. Returns its id; of the hold given the
    // id is ignored. Errors: as append_to_ledger().
    Result<std::string> place_hold(pb::HoldPlaced hold, const std::string& actor);
    // Errors: not_found.
    Result<> release_hold(pb::HoldReleased released, const std::string& actor);

    // Retention, first step: what expires by the survey is entered as condemned at its place, and
    // from then on neither listed nor chosen there, nor shared. Errors: busy if the repository is
    // not as it was surveyed any more.
    Result<> condemn(const RetentionSurvey& survey);
    // Second step: what is due by the order is entered as deleted. Its objects are removed after
    // that: those of the repository's directory by this, which also finishes what a crash left;
    // those of a tier by its Offloader, when the tier has the entry.
    Result<Deletions> delete_condemned(const DeletionOrder& order);

    // What still lives of packs that are mostly dead (RetentionSurvey::rewrites) is copied into a
    // new pack of the directory: begun, copied by PackRewrite::copy(), and entered, from when on
    // the chunks lie there. Nothing is let go by it: a later survey finds the old packs without
    // anything that is needed. Errors: not_found, corrupt, io, no_space; busy as require_writer().
    Result<std::unique_ptr<PackRewrite>> begin_rewrite(std::vector<RewriteCandidate> sources);
    Result<> enter_rewrite(std::unique_ptr<PackRewrite> rewrite);

    Result<> append_to_ledger(pb::LedgerEntry entry);
    // RepositoryOptions::wal_level from now on.
    void set_wal_level(int level);

    // Everything applied is on disk; for shutdown.
    Result<> sync();

private:
    struct State;
    explicit Repository(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// For one-shot commands while no agent runs, by root too: what it makes belongs to the repository's
// owner. Errors: busy if an agent runs.
Result<> append_to_ledger(FileSystem& files, const std::string& root, const MasterKey& master,
                          const Clock& clock, pb::LedgerEntry entry);

}  // namespace walvault::storage
