// Writing a journal: JournalTail (batches appended and synced as transactions commit),
// JournalRewrite (a closed tail made into packs), SnapshotWriter (the rows of one table).
// docs/journal.md has the formats and the order of writes.
//
// All are made and finished by Repository, in its thread; in between each is used by one thread at
// a time, which may be another one: nothing of the physical stream waits for them. After an error
// an object is broken for good.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/journal_format.h"
#include "storage/pack_reader.h"
#include "storage/repository_view.h"
#include "storage/tail_writer.h"

namespace walvault::storage {

// Where a batch or a quiet frame goes, decided by the tail; sealing needs nothing else, and may be
// done by any thread.
struct JournalFramePlan {
    std::shared_ptr<const TailPlan> tail;
    std::uint32_t frame_number = 0;
    std::uint32_t synced_frames = 0;
    Lsn start_lsn;
    Lsn end_lsn;
    bool is_quiet = false;
    std::int64_t covered_until_us = 0;  // quiet only
};
struct SealedJournalFrame {
    JournalFramePlan plan;
    ByteBuffer bytes;
    pb::FrameEntry entry;  // of a batch; its tables numbered as in `tables`
    std::vector<pb::JournalTable> tables;
};
// Errors: corrupt for a batch that is none.
Result<SealedJournalFrame> seal_batch(JournalFramePlan plan, const JournalBatch& batch, int level);
// Everything up to plan.end_lsn is stored, and as the server's keepalive of `covered_until` says
// nothing else was committed until then.
SealedJournalFrame seal_quiet(JournalFramePlan plan);

// The open pack of a journal. Made by Repository::open_journal_tail().
class JournalTail {
public:
    explicit JournalTail(std::unique_ptr<TailWriter> tail, std::shared_ptr<const TailPlan> plan);

    const TailPlan& plan() const { return *plan_; }
    // Where the next frame goes, and that this batch (or quiet frame) is it. Frames are appended in
    // the order in which they were planned; none may be left out.
    JournalFramePlan plan_batch(const JournalBatch& batch);
    // `end_lsn`: at or behind planned_end_lsn(); not while a transaction is open (asserted).
    JournalFramePlan plan_quiet(Lsn end_lsn, WallTime covered_until);
    // Errors: corrupt for a frame that was not the next one planned (nothing is written); io,
    // no_space.
    Result<> append(SealedJournalFrame frame);
    // Blocks for one fdatasync. What was appended before it is durable, and end_lsn() moves.
    Result<> sync();

    Lsn planned_end_lsn() const { return planned_end_lsn_; }
    Lsn end_lsn() const { return synced_end_lsn_; }  // synced up to here
    std::uint32_t synced_frames() const { return synced_frames_; }
    std::uint64_t synced_offset() const { return synced_offset_; }  // in the file, for tiers
    std::uint64_t stored_bytes() const { return tail_->end_offset(); }
    // To be closed before it has kPackFramesMax.
    std::uint32_t frame_count() const { return appended_frames_; }
    // The last batch planned ends inside a transaction: not to be closed now, unless that is given
    // up.
    bool is_inside_transaction() const { return is_inside_; }

private:
    friend class Repository;
    std::unique_ptr<TailWriter> tail_;
    std::shared_ptr<const TailPlan> plan_;
    Lsn planned_end_lsn_;
    Lsn appended_end_lsn_;
    Lsn synced_end_lsn_;
    std::uint32_t planned_frames_ = 0;
    std::uint32_t appended_frames_ = 0;
    std::uint32_t synced_frames_ = 0;
    std::uint64_t synced_offset_ = 0;
    bool is_inside_ = false;
    std::int64_t appended_covered_us_ = 0;
    std::int64_t synced_covered_us_ = 0;
    JournalTables tables_;
    pb::PackFooter footer_;  // of the batches appended
};

// A tail of a journal as it is on disk: a footer that tells its frames, as a pack's does.
struct ScannedJournalTail {
    std::shared_ptr<const PackReader> reader;  // its footer has the batches that count
    Lsn end_lsn;
    std::int64_t covered_until_us = 0;
    std::uint32_t frame_count = 0;
    std::uint64_t torn_bytes = 0;
    // Set where synced frames are damaged or missing: what is here is whole, but not all there was.
    std::optional<Error> damage;
};
// Reads a tail to its last whole frame. Pieces of a transaction without its commit are left out.
// What tells a torn end from damage is as for WAL: see scan_tail(). Errors: corrupt for the file
// header.
Result<ScannedJournalTail> scan_journal_tail(ObjectStore& store, const std::string& path,
                                             const Keyring& keyring,
                                             std::uint32_t synced_frames_witness, Lsn reached_lsn);

// A tail that is being closed: its batches, merged into larger ones, in one pack or several, with
// key blocks. Made by Repository::begin_closing(). run() touches the files alone.
class JournalRewrite {
public:
    struct Plan;
    explicit JournalRewrite(std::unique_ptr<Plan> plan);
    ~JournalRewrite();
    // Reads the tail back and writes the packs, durably. Any thread, once. What a crash leaves of
    // it is removed at the next start. Memory: some 64 MiB, and the largest row. Errors: corrupt,
    // io, no_space.
    Result<> run();

    Plan& plan() { return *plan_; }

private:
    std::unique_ptr<Plan> plan_;
};

// The rows of one table as of one LSN. Made by Repository::begin_snapshot(); counts when
// Repository::take_snapshot() has returned. Given up when it goes.
class SnapshotWriter {
public:
    struct Plan;
    explicit SnapshotWriter(std::unique_ptr<Plan> plan);
    ~SnapshotWriter();
    // A batch of rows, as BatchWriter makes them; of an empty table one that only mentions the
    // relation. Seals and writes it. Errors: corrupt for a batch of other records; io, no_space.
    Result<> append(const JournalBatch& batch);
    std::uint64_t row_count() const;
    std::uint64_t stored_bytes() const;

    Plan& plan() { return *plan_; }

private:
    std::unique_ptr<Plan> plan_;
};

}  // namespace walvault::storage
