// RepositoryView: a read-only look at a repository: what can be restored, and the bytes for it.
//
// Works beside a running agent, without one, and without an index: the index is opened read-only
// where it can be, caught up from the ledger in memory, and rebuilt into a scratch directory where
// it cannot. Open tails are scanned, so everything flushed before open() is seen, and still is when
// the agent closes them meanwhile. Blocking; one thread at a time unless said otherwise.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/repository.pb.h"
#include "proto/wal_decoder.h"
#include "storage/index_store.h"
#include "storage/keyring.h"
#include "storage/object_store.h"

namespace walvault::storage {

struct ClusterRecord {
    std::string name;
    std::uint64_t system_identifier = 0;
    std::uint64_t segment_bytes = 0;
    unsigned server_version_num = 0;
};

// One lineage of WAL bytes. With a parent, the bytes before start_lsn are the parent's.
struct HistoryRecord {
    std::string cluster;
    Id16 id{};
    TimelineId timeline = 0;
    Lsn start_lsn;            // first byte stored for this history itself; a segment's first
    Lsn end_lsn;              // first byte not stored (flushed and found in a pack or a tail)
    WallTime last_commit_at;  // zero: none
    WallTime covered_until;   // every commit at or before this moment is before end_lsn
    pb::HistoryOpened::Cause cause = pb::HistoryOpened::CAUSE_UNSPECIFIED;
    std::string reason;
    std::optional<Id16> parent;
    Lsn fork_lsn;  // with a parent: first byte that is not the parent's
    // Set when synced WAL behind end_lsn is damaged or missing: what the history lost, and from
    // where.
    std::optional<Error> damage = {};
};

struct GapRecord {
    std::string cluster;
    Id16 history_id{};  // the one that ends at from_lsn, or that the gap lies in
    TimelineId timeline = 0;
    Lsn from_lsn;
    Lsn to_lsn;
    WallTime from_at;
    WallTime to_at;
    std::string cause;
    std::optional<Id16> next = {};  // the history that begins at to_lsn; none: replay cannot pass
};

// What the index knows of a journal.
struct JournalRecord {
    Id16 id{};
    std::string cluster;
    std::string database;
    std::string data_class;  // empty: the main journal of its database
    std::string slot;
    std::string publication;
    Lsn start_lsn;  // transactions that end behind it are in it
    // Every transaction of its tables that ends at or before this is stored, and none behind it.
    Lsn end_lsn;
    // Up to where it counts for a reader: of the main journal its end, of another the main
    // journal's, which says that the others have no more up to there.
    Lsn whole_until_lsn;
    WallTime
        covered_until;  // every commit at or before this moment is before end_lsn; zero: not known
    // Set where bytes of it cannot be read: what, and from where on.
    std::optional<Error> damage = {};
    // The history of WAL that its last tail was opened in; nothing before the first.
    std::optional<Id16> wal_history = {};
};

struct MarkRecord {
    Id16 history_id{};
    pb::MarkEntry mark;
};

class JournalSource;

// The bytes [from, to) of a lineage are those stored for `history`.
struct Stretch {
    Id16 history{};
    Lsn from;
    Lsn to;
};
inline constexpr Lsn kOpenEndLsn{~std::uint64_t{0}};

// An order that nothing of what it covers expires at any place.
struct HoldRecord {
    std::string id;
    std::string backup_id = {};  // this base, with the WAL that makes it consistent; empty: moments
    // What restores the cluster to each moment of [from, to]; without `to` to each later one.
    std::optional<WallTime> from = {}, to = {};
    std::optional<WallTime> until = {};  // from then on it holds nothing
    std::string reason = {};
    WallTime placed_at = {};
    std::string placed_by = {};

    bool is_over(WallTime now) const { return until && *until <= now; }
};

// A pack that is condemned at a place, and not deleted there yet.
struct CondemnedThere {
    pb::PackInfo pack;
    std::string reason;
    WallTime at;
    std::uint64_t sequence = 0;  // of the ledger entry that condemned it
    // Places that have it and have not condemned it.
    std::vector<std::string> kept_at = {};
};

struct ChunkPlace {
    Id16 file_id{};  // of the pack
    std::uint32_t frame_number = 0;
    std::uint64_t offset = 0;
    std::uint32_t stored_bytes = 0;
    std::uint32_t plain_bytes = 0;
    bool condemned = false;  // the pack is: not to be shared any more
};

// A stretch of time in which commits were stamped earlier than ones before them in WAL.
struct ClockStep {
    Lsn at_lsn;  // start of the commit record with the earlier stamp
    WallTime stepped_to;
    WallTime stepped_from;
};

class RepositoryView {
public:
    struct Options {
        std::string index_directory;  // REPO/index; empty: never use one
        // Where an index may be rebuilt: in a directory of its own that only this user can look
        // into, removed afterwards.
        std::string scratch_directory;
        // A tier: what the ledger says is there, but the newest tails may not have come yet.
        bool is_tier = false;
        IndexHome* index_home = &rocksdb_home();
        // Only what lies at this place: a tier, or "" for the repository's directory. Unset: what
        // lies anywhere; the store finds it.
        std::optional<std::string> place = {};
        // Also what retention has condemned, while it is there: for a replay that began before.
        bool with_condemned = false;
    };
    // What retention does while it is open changes nothing for it; that the objects stay so long is
    // what a lease is for. Errors: not_found (no repository there), wrong_key, corrupt,
    // unsupported, io, unavailable.
    static Result<std::unique_ptr<RepositoryView>> open(ObjectStore& store, const MasterKey& master,
                                                        const Options& options);
    virtual ~RepositoryView() = default;

    virtual const Id16& repository_id() const = 0;
    virtual Result<std::vector<ClusterRecord>> clusters() = 0;
    // In the order in which they were opened.
    virtual Result<std::vector<HistoryRecord>> histories(const std::string& cluster) = 0;
    // The one being followed: opened or resumed last.
    virtual Result<std::optional<Id16>> current_history(const std::string& cluster) = 0;
    // What a history is made of: its ancestors' stretches, oldest first, then its own, which is
    // open.
    virtual Result<std::vector<Stretch>> lineage(const Id16& history_id) = 0;
    // Complete ones, oldest first.
    virtual Result<std::vector<pb::BackupInfo>> backups(const std::string& cluster) = 0;
    virtual Result<std::vector<GapRecord>> gaps(const std::string& cluster) = 0;
    // Those that were not released, in the order in which they were placed; also those that are
    // over.
    virtual Result<std::vector<HoldRecord>> holds(const std::string& cluster) = 0;
    // WAL of the history itself expired up to here, but for what single bases need; zero: none did.
    virtual Result<Lsn> expired_until(const Id16& history_id) = 0;
    // What retention has condemned at `place` and not yet deleted.
    virtual Result<std::vector<CondemnedThere>> condemned(const std::string& cluster,
                                                          const std::string& place) = 0;
    // The tiers that the ledger speaks of, by name.
    virtual Result<std::vector<std::string>> tiers() = 0;
    // Base backups that run, or whose agent stopped while they ran.
    virtual Result<std::vector<pb::BackupStarted>> unfinished_backups() = 0;
    // Of each history of the cluster its own, in WAL order. Zero times mean "no limit". Empty
    // kinds: all.
    virtual Result<std::vector<MarkRecord>> marks(
        const std::string& cluster, WallTime since, WallTime until,
        const std::vector<pb::MarkEntry::Kind>& kinds) = 0;
    // Of the whole lineage, in WAL order.
    virtual Result<std::vector<MarkRecord>> lineage_marks(
        const Id16& history_id, WallTime since, WallTime until,
        const std::vector<pb::MarkEntry::Kind>& kinds) = 0;
    virtual Result<std::vector<ClockStep>> clock_steps(const Id16& history_id) = 0;
    // Content of the history file of `timeline` in this lineage, as the server gave it. Two clones
    // may have taken the same number. Errors: not_found.
    virtual Result<std::string> timeline_history(const Id16& history_id, TimelineId timeline) = 0;
    struct Totals {
        std::uint64_t wal_plain_bytes = 0, wal_stored_bytes = 0;
        std::uint64_t base_plain_bytes = 0,
                      base_stored_bytes = 0;  // plain: of chunks stored, each once
        std::uint64_t chunk_count = 0, pack_count = 0;
        std::uint64_t journal_plain_bytes = 0, journal_stored_bytes = 0;  // snapshots too
    };
    virtual Result<Totals> totals(const std::string& cluster) = 0;
    virtual Result<std::vector<pb::PackInfo>> packs(const std::string& cluster) = 0;

    // Proves that every byte of [from, to) of the history is stored (by packs and tails listed, not
    // by reading them). Errors: gap, naming the first missing interval.
    virtual Result<> require_coverage(const Id16& history_id, Lsn from, Lsn to) = 0;
    // Calls `sink` with consecutive pieces of exactly [from, to). Errors: gap, corrupt, io, or
    // sink's.
    virtual Result<> read_wal(const Id16& history_id, Lsn from, Lsn to,
                              const std::function<Result<>(ByteSpan)>& sink) = 0;

    // Transactions are commit and abort findings, in WAL order. All of these read at most a few
    // frames. The first one with a time stamp later than `at`, or nothing.
    virtual Result<std::optional<WalFinding>> first_transaction_after(const Id16& history_id,
                                                                      WallTime at) = 0;
    // The first one whose record starts at or after `lsn`, or nothing.
    virtual Result<std::optional<WalFinding>> first_transaction_from(const Id16& history_id,
                                                                     Lsn lsn) = 0;
    // The last COMMIT whose record starts before `lsn`, or nothing.
    virtual Result<std::optional<WalFinding>> last_commit_before(const Id16& history_id,
                                                                 Lsn lsn) = 0;
    // Whether a COMMIT is stored whose record ends behind `lsn`; where WAL is missing behind `lsn`,
    // of what is stored behind the last such hole.
    virtual Result<bool> has_commit_behind(const Id16& history_id, Lsn lsn) = 0;
    // Commits and aborts of `xid`, also as a subtransaction's parent only; newest last (xids wrap
    // around).
    virtual Result<std::vector<WalFinding>> find_xid(const Id16& history_id, Xid xid) = 0;
    // Everything the decoder finds in records that start in [from, to). `sink` returns false to
    // stop.
    virtual Result<> scan(const Id16& history_id, Lsn from, Lsn to,
                          const std::function<bool(const WalFinding&)>& sink) = 0;
    // How many commits have their record in [from, to): exact up to 16 MiB of WAL, beyond that from
    // summaries, rounded to frames.
    virtual Result<std::uint64_t> count_commits(const Id16& history_id, Lsn from, Lsn to) = 0;

    // Journals, in the order in which they were opened; what of them lies where is for
    // JournalReader.
    virtual Result<std::vector<JournalRecord>> journals(const std::string& cluster) = 0;
    // Nullptr: there is none of this id.
    virtual Result<std::unique_ptr<JournalSource>> journal_source(const Id16& journal) = 0;

    // Calls `on_head` once, then `on_file` for each entry in manifest order. Reads frame by frame.
    virtual Result<> read_manifest(const pb::BackupInfo& backup,
                                   const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                                   const std::function<Result<>(pb::ManifestFile&)>& on_file) = 0;
    // The plain bytes of a chunk, into a buffer the caller owns. May be called from any thread at
    // once. Errors: not_found (proven absent: the index lists everything), corrupt, io.
    virtual Result<> read_chunk(const Id32& content_id, ByteBuffer& plain) = 0;
    // Where a chunk lies. From any thread. Errors: not_found, io.
    virtual Result<ChunkPlace> place_of_chunk(const Id32& content_id) = 0;
    // Whether `place` has not condemned the pack.
    virtual Result<bool> keeps(const pb::PackInfo& pack, const std::string& place) = 0;
    // Reads every frame of a pack or tail and checks it (authentication, content ids, WAL
    // continuity). Errors: corrupt, not_found, io, naming the frame and what it holds.
    virtual Result<std::uint64_t> verify_pack(const pb::PackInfo& pack, bool decode_wal) = 0;
};

}  // namespace walvault::storage
