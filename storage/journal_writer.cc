#include "storage/journal_writer.h"

#include <algorithm>

#include "storage/journal_end.h"
#include "storage/journal_pack.h"
#include "storage/journal_rewrite.h"
#include "storage/repository_files.h"
#include "storage/tail_scan.h"
#include "storage/wal_summary.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kQuietBytes = 16;
// A snapshot's pack ends at this.
constexpr std::uint64_t kRowsPackBytes = 1 << 30;

FramePlace place_of(const JournalFramePlan& plan) {
    return {.kind = plan.is_quiet ? FrameKind::quiet : FrameKind::content,
            .frame_number = plan.frame_number,
            .start = plan.start_lsn.value,
            .end = plan.start_lsn.value,
            .synced_frames = plan.synced_frames};
}

// The entry of a batch in the footer of its file, but for its place there.
Result<> describe_into(pb::FrameEntry& entry, ByteSpan batch, JournalTables& tables) {
    WV_TRY(BatchFacts facts, describe_batch(batch, tables));
    entry.set_plain_bytes(static_cast<std::uint32_t>(batch.size()));
    if (facts.frame.end_lsn() == 0) facts.frame.set_end_lsn(entry.start_lsn());
    if (facts.summary.commit_count() > 0) *entry.mutable_summary() = std::move(facts.summary);
    *entry.mutable_journal() = std::move(facts.frame);
    return {};
}

struct QuietFrame {
    Lsn end_lsn;
    std::int64_t covered_until_us = 0;
};
Result<QuietFrame> read_quiet(ByteSpan plain, Lsn start_lsn) {
    ByteReader reader(plain);
    QuietFrame quiet{.end_lsn = Lsn{reader.le<std::uint64_t>()}};
    quiet.covered_until_us = static_cast<std::int64_t>(reader.le<std::uint64_t>());
    if (plain.size() != kQuietBytes || quiet.end_lsn < start_lsn)
        return fail(Errc::corrupt, "a quiet frame of a journal that does not follow");
    return quiet;
}

}  // namespace

Result<Lsn> journal_end_behind(FrameKind kind, ByteSpan plain, Lsn start_lsn) {
    if (kind == FrameKind::quiet) {
        WV_TRY(QuietFrame quiet, read_quiet(plain, start_lsn));
        return quiet.end_lsn;
    }
    JournalTables tables;
    WV_TRY(BatchFacts facts, describe_batch(plain, tables));
    return std::max(start_lsn, Lsn{facts.frame.end_lsn()});
}

Result<SealedJournalFrame> seal_batch(JournalFramePlan plan, const JournalBatch& batch, int level) {
    WV_ASSERT(!plan.is_quiet);
    SealedJournalFrame frame;
    JournalTables tables;
    frame.entry.set_frame_number(plan.frame_number);
    frame.entry.set_start_lsn(plan.start_lsn.value);
    WV_CHECK(describe_into(frame.entry, batch.plain, tables));
    if (Lsn{frame.entry.journal().end_lsn()} != plan.end_lsn)
        return fail(Errc::corrupt, "a batch of a journal ends at " +
                                       to_string(Lsn{frame.entry.journal().end_lsn()}) +
                                       " and was planned to end at " + to_string(plan.end_lsn));
    frame.tables = tables.tables();
    frame.bytes = plan.tail->cipher.seal(place_of(plan), batch.plain, level);
    frame.plan = std::move(plan);
    return frame;
}

SealedJournalFrame seal_quiet(JournalFramePlan plan) {
    WV_ASSERT(plan.is_quiet);
    ByteBuffer plain;
    append_le(plain, plan.end_lsn.value);
    append_le(plain, plan.covered_until_us);
    SealedJournalFrame frame;
    frame.bytes = plan.tail->cipher.seal(place_of(plan), plain, kNotCompressed);
    frame.plan = std::move(plan);
    return frame;
}

JournalTail::JournalTail(std::unique_ptr<TailWriter> tail, std::shared_ptr<const TailPlan> plan)
    : tail_(std::move(tail)),
      plan_(std::move(plan)),
      planned_end_lsn_(plan_->header().start_lsn),
      appended_end_lsn_(planned_end_lsn_),
      synced_end_lsn_(planned_end_lsn_),
      synced_offset_(tail_->end_offset()) {}

JournalFramePlan JournalTail::plan_batch(const JournalBatch& batch) {
    WV_ASSERT(!batch.end_lsn || batch.end_lsn > planned_end_lsn_);
    JournalFramePlan plan{.tail = plan_,
                          .frame_number = planned_frames_++,
                          .synced_frames = synced_frames_,
                          .start_lsn = planned_end_lsn_,
                          .end_lsn = batch.end_lsn ? batch.end_lsn : planned_end_lsn_};
    planned_end_lsn_ = plan.end_lsn;
    is_inside_ = batch.is_open;
    return plan;
}

JournalFramePlan JournalTail::plan_quiet(Lsn end_lsn, WallTime covered_until) {
    WV_ASSERT(!is_inside_ && end_lsn >= planned_end_lsn_);
    JournalFramePlan plan{.tail = plan_,
                          .frame_number = planned_frames_++,
                          .synced_frames = synced_frames_,
                          .start_lsn = planned_end_lsn_,
                          .end_lsn = end_lsn,
                          .is_quiet = true,
                          .covered_until_us = covered_until.time_since_epoch().count()};
    planned_end_lsn_ = end_lsn;
    return plan;
}

Result<> JournalTail::append(SealedJournalFrame frame) {
    const JournalFramePlan& plan = frame.plan;
    if (plan.tail != plan_ || plan.frame_number != appended_frames_ ||
        plan.start_lsn != appended_end_lsn_)
        return fail(Errc::corrupt, "frame " + std::to_string(plan.frame_number) + " of " +
                                       plan_->path + " is not the next one, which is frame " +
                                       std::to_string(appended_frames_));
    frame.entry.set_offset(tail_->end_offset());
    WV_CHECK(tail_->append(frame.bytes));
    ++appended_frames_;
    appended_end_lsn_ = plan.end_lsn;
    if (plan.is_quiet) {
        appended_covered_us_ = std::max(appended_covered_us_, plan.covered_until_us);
        return {};
    }
    frame.entry.set_stored_bytes(static_cast<std::uint32_t>(frame.bytes.size()));
    frame.entry.set_tag(tag_of(frame.bytes));
    for (pb::JournalCount& count : *frame.entry.mutable_journal()->mutable_counts())
        count.set_table(tables_.number_of(frame.tables[count.table()]));
    *footer_.add_frames() = std::move(frame.entry);
    return {};
}

Result<> JournalTail::sync() {
    const std::uint32_t frames = appended_frames_;
    WV_CHECK(tail_->sync());
    synced_frames_ = frames;
    synced_end_lsn_ = appended_end_lsn_;
    synced_offset_ = tail_->end_offset();
    synced_covered_us_ = appended_covered_us_;
    return {};
}

namespace {

class JournalTailScan final : public TailScan {
public:
    JournalTailScan(ObjectStore& store, std::string path, FileCipher cipher, std::uint64_t size)
        : TailScan(store, std::move(path), std::move(cipher), size, "the journal") {}

    Result<ScannedJournalTail> scan(std::uint32_t witness, Lsn reached) {
        WV_CHECK(run(witness, reached));
        ScannedJournalTail tail;
        tail.end_lsn = end_lsn_;
        tail.covered_until_us = covered_until_us_;
        tail.frame_count = frame_number();
        tail.torn_bytes = torn_bytes();
        tail.damage = std::move(damage_);
        footer_.mutable_tables()->Assign(tables_.tables().begin(), tables_.tables().end());
        tail.reader = take_reader();
        return tail;
    }

private:
    Lsn frame_end(const FrameHeader&) const override { return end_lsn_; }

    Result<> take_quiet(ByteSpan plain) override {
        WV_TRY(QuietFrame quiet, read_quiet(plain, end_lsn_));
        covered_until_us_ = std::max(covered_until_us_, quiet.covered_until_us);
        end_lsn_ = quiet.end_lsn;
        return {};
    }

    Result<> take_content(ByteSpan plain, pb::FrameEntry entry) override {
        if (auto described = describe_into(entry, plain, tables_); !described) {
            // Nobody but the writer can have sealed it: this is not what a crash leaves.
            damage_ = Error{Errc::corrupt, path() + ": frame " + std::to_string(frame_number()) +
                                               " is authentic and no batch of a journal: " +
                                               described.error().message};
            return described;
        }
        end_lsn_ = std::max(end_lsn_, Lsn{entry.journal().end_lsn()});
        *footer_.add_frames() = std::move(entry);
        return {};
    }

    JournalTables tables_;
    std::int64_t covered_until_us_ = 0;
};

}  // namespace

Result<ScannedJournalTail> scan_journal_tail(ObjectStore& store, const std::string& path,
                                             const Keyring& keyring,
                                             std::uint32_t synced_frames_witness, Lsn reached_lsn) {
    const auto once = [&]() -> Result<ScannedJournalTail> {
        WV_TRY(ObjectInfo info, store.info(path));
        WV_TRY(FileCipher cipher, open_cipher(store, path, keyring));
        if (cipher.header().stream != StreamKind::journal)
            return fail(Errc::corrupt, path + " is not a tail of a journal");
        JournalTailScan scan(store, path, std::move(cipher), info.size_bytes);
        return scan.scan(synced_frames_witness, reached_lsn);
    };
    WV_TRY(ScannedJournalTail scanned, once());
    if (!scanned.damage) return scanned;
    return once();
}

// --- JournalRewrite --------------------------------------------------------------------------

JournalRewrite::JournalRewrite(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
JournalRewrite::~JournalRewrite() = default;

Result<> JournalRewrite::run() {
    Plan& plan = *plan_;
    WV_ASSERT(!plan.is_done);
    const pb::PackFooter& footer = plan.reader->footer();
    const std::vector<bool> completed = completed_batches(footer);
    BatchMerger merger;
    ByteBuffer plain;
    Lsn start = plan.start_lsn;
    const auto write = [&]() -> Result<> {
        if (merger.is_empty()) return {};
        const JournalBatch batch = merger.take();
        WV_CHECK(plan.append(batch, start));
        if (batch.end_lsn) start = batch.end_lsn;
        return {};
    };
    for (int i = 0; i < footer.frames_size(); ++i) {
        const pb::JournalFrame& frame = footer.frames(i).journal();
        const bool counts = completed[static_cast<std::size_t>(i)];
        const bool is_of_none =
            frame.goes_on() && !counts && footer.frames(i).summary().commit_count() == 0;
        if (is_of_none) continue;
        WV_CHECK(plan.reader->read_batch(plan.store, i, plain));
        const bool without_last = frame.open() && !counts;
        WV_TRY(bool taken, merger.add(plain, without_last));
        if (taken) continue;
        WV_CHECK(write());
        WV_TRY(taken, merger.add(plain, without_last));
        WV_ASSERT(taken);
    }
    WV_CHECK(write());
    WV_CHECK(plan.finish_pack(plan.end_lsn));
    plan.is_done = true;
    return {};
}

Result<> JournalRewrite::Plan::append(const JournalBatch& batch, Lsn start) {
    if (!pack) {
        FileHeader next = header;
        next.file_id = random_id16();
        next.start_lsn = start;
        FileCipher cipher = FileCipher::for_new_file(*key, next);
        const std::string path =
            journal_file_name(cluster, header.history_id, start, name_suffix) + ".pack";
        WV_TRY(pack, JournalPackWriter::create(files, root, path, std::move(cipher), level));
        pack_start = start;
    }
    WV_CHECK(pack->append(batch.plain, start));
    // Each pack has whole transactions.
    if (!pack->is_full() || batch.is_open) return {};
    return finish_pack(batch.end_lsn ? batch.end_lsn : start);
}

Result<> JournalRewrite::Plan::finish_pack(Lsn end) {
    if (!pack) {
        // Quiet frames behind the last batch move the end of the last pack.
        if (!packs.empty()) packs.back().info.set_end_lsn(end.value);
        return {};
    }
    pb::PackInfo info;
    info.set_kind(pb::PACK_KIND_JOURNAL);
    info.set_cluster(cluster);
    info.set_history_id(text_of(header.history_id));
    info.set_timeline(header.timeline);
    info.set_start_lsn(pack_start.value);
    info.set_end_lsn(end.value);
    WV_TRY(info, pack->finish(std::move(info)));
    packs.push_back({std::move(info), pack->footer()});
    pack.reset();
    return {};
}

// Nothing names them.
JournalRewrite::Plan::~Plan() {
    if (is_entered) return;
    pack.reset();
    for (const Written& each : packs)
        (void)files.remove(root + "/" + each.info.path());
}

// --- SnapshotWriter --------------------------------------------------------------------------

SnapshotWriter::SnapshotWriter(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
SnapshotWriter::~SnapshotWriter() = default;
std::uint64_t SnapshotWriter::row_count() const { return plan_->row_count(); }
std::uint64_t SnapshotWriter::stored_bytes() const {
    return plan_->finished_bytes + (plan_->pack ? plan_->pack->stored_bytes() : 0);
}

std::uint64_t SnapshotWriter::Plan::row_count() const {
    return finished_rows + (pack ? pack->row_count() : 0);
}

Result<> SnapshotWriter::append(const JournalBatch& batch) {
    Plan& plan = *plan_;
    WV_TRY(BatchReader reader, BatchReader::open(batch.plain));
    JournalRecordView record;
    bool ends_inside_row = false;
    for (;;) {
        WV_TRY(bool more, reader.next(record));
        if (!more) break;
        const bool is_part = record.kind == JournalRecordKind::part;
        if ((is_part ? record.part_of : record.kind) != JournalRecordKind::row)
            return fail(Errc::corrupt, "a batch of a snapshot holds something else than rows");
        ends_inside_row = is_part && !record.is_last_part();
    }
    if (!plan.pack) {
        FileHeader header = plan.header;
        header.file_id = random_id16();
        FileCipher cipher = FileCipher::for_new_file(*plan.key, header);
        char number[16];
        std::snprintf(number, sizeof number, "-%05zu", plan.packs.size());
        WV_TRY(plan.pack, JournalPackWriter::create(plan.files, plan.root,
                                                    plan.path_prefix + number + ".rows.pack",
                                                    std::move(cipher), plan.level));
    }
    WV_CHECK(plan.pack->append(batch.plain, plan.header.start_lsn));
    if (ends_inside_row) return {};
    if (!plan.pack->is_full() && plan.pack->stored_bytes() < kRowsPackBytes) return {};
    return plan.finish_pack();
}

Result<> SnapshotWriter::Plan::finish_pack() {
    if (!pack) return {};
    pb::PackInfo info;
    info.set_kind(pb::PACK_KIND_JOURNAL_ROWS);
    info.set_cluster(taken.cluster());
    info.set_history_id(taken.journal_id());
    info.set_timeline(header.timeline);
    info.set_start_lsn(taken.lsn());
    info.set_end_lsn(taken.lsn());
    WV_TRY(info, pack->finish(std::move(info)));
    finished_bytes += info.stored_bytes();
    finished_rows += pack->row_count();
    packs.push_back({std::move(info), pack->footer()});
    pack.reset();
    return {};
}

SnapshotWriter::Plan::~Plan() {
    if (is_entered) return;
    pack.reset();
    for (const Written& each : packs)
        (void)files.remove(root + "/" + each.info.path());
}

}  // namespace walvault::storage
