#include <algorithm>

#include "base/log.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

constexpr std::uint64_t kPackFrameBytes = 1 << 20;        // plain bytes of a rewritten frame
constexpr std::uint64_t kLargeFrameBytesMin = 256 << 10;  // mean from which frames stay as they are

std::uint64_t plain_bytes_of(const pb::PackFooter& footer) {
    std::uint64_t sum = 0;
    for (const pb::FrameEntry& frame : footer.frames())
        sum += frame.plain_bytes();
    return sum;
}

// Frames [first, last) of a tail as one: a union, so that nothing needs to be decoded again.
pb::FrameEntry merged_entry(const pb::PackFooter& footer, int first, int last) {
    pb::FrameEntry merged;
    merged.set_start_lsn(footer.frames(first).start_lsn());
    std::uint64_t plain = 0;
    for (int i = first; i < last; ++i) {
        const pb::FrameEntry& frame = footer.frames(i);
        plain += frame.plain_bytes();
        if (merged.record_start_lsn() == 0) merged.set_record_start_lsn(frame.record_start_lsn());
        merge_summary(*merged.mutable_summary(), frame.summary());
    }
    merged.set_plain_bytes(static_cast<std::uint32_t>(plain));
    return merged;
}

int group_end(const pb::PackFooter& footer, int first) {
    std::uint64_t plain = footer.frames(first).plain_bytes();
    int last = first + 1;
    while (last < footer.frames_size() &&
           plain + footer.frames(last).plain_bytes() <= kPackFrameBytes)
        plain += footer.frames(last++).plain_bytes();
    return last;
}

}  // namespace

bool is_pack_of_tail(const FileHeader& header, const pb::TailOpened& opened) {
    return header.stream == StreamKind::wal && text_of(header.history_id) == opened.history_id() &&
           header.start_lsn.value == opened.start_lsn();
}

pb::PackInfo wal_pack_info(const std::string& cluster, const FileHeader& header, Lsn end,
                           const pb::WalSummary& summary) {
    pb::PackInfo info;
    info.set_kind(pb::PACK_KIND_WAL);
    info.set_cluster(cluster);
    info.set_history_id(text_of(header.history_id));
    info.set_timeline(header.timeline);
    info.set_start_lsn(header.start_lsn.value);
    info.set_end_lsn(end.value);
    info.set_plain_bytes(end - header.start_lsn);
    *info.mutable_summary() = summary;
    return info;
}

FileHeader Repository::State::header_for(StreamKind stream, const ClusterRecord& cluster) const {
    FileHeader header;
    header.stream = stream;
    header.server_version_num = cluster.server_version_num;
    header.segment_bytes = cluster.segment_bytes;
    header.system_identifier = cluster.system_identifier;
    header.generation = generation;
    header.repository_id = id;
    header.cluster_id = cluster_id_of(keyring, cluster.name);
    header.file_id = random_id16();
    return header;
}

Result<FileCipher> Repository::State::new_cipher(pb::KeyPurpose purpose, FileHeader header) {
    const DataKey* key = keyring.current(purpose);
    if (key == nullptr) return fail(Errc::corrupt, "the keyring has no key for this kind of data");
    return FileCipher::for_new_file(*key, header);
}

Result<std::shared_ptr<const TailPlan>> Repository::plan_tail(const HistoryRecord& history,
                                                              const ClusterRecord& cluster,
                                                              Lsn start) {
    FileHeader header = state_->header_for(StreamKind::wal, cluster);
    header.timeline = history.timeline;
    header.history_id = history.id;
    header.start_lsn = start;
    WV_TRY(FileCipher cipher, state_->new_cipher(pb::KEY_PURPOSE_WAL, header));
    std::string path = tail_name(cluster.name, history.id, history.timeline, start,
                                 state_->generation, state_->next_serial++);
    return std::make_shared<const TailPlan>(
        TailPlan{std::move(path), cluster.name, std::move(cipher)});
}

Result<std::unique_ptr<TailWriter>> Repository::open_tail(std::shared_ptr<const TailPlan> plan,
                                                          const std::optional<Id16>& wal_history) {
    pb::LedgerEntry entry;
    pb::TailOpened& opened = *entry.mutable_tail_opened();
    opened.set_cluster(plan->cluster);
    opened.set_history_id(text_of(plan->header().history_id));
    opened.set_timeline(plan->header().timeline);
    opened.set_start_lsn(plan->header().start_lsn.value);
    opened.set_path(plan->path);
    opened.set_file_id(text_of(plan->header().file_id));
    opened.set_kind(plan->header().stream == StreamKind::journal ? pb::PACK_KIND_JOURNAL
                                                                 : pb::PACK_KIND_WAL);
    if (wal_history) opened.set_wal_history_id(text_of(*wal_history));
    WV_TRY(auto tail, TailWriter::create(state_->files, state_->root, plan));
    WV_CHECK(state_->enter(std::move(entry)));
    state_->held_tails.insert(plan->path);
    return tail;
}

void Repository::drop_tail(std::unique_ptr<TailWriter> tail) {
    state_->held_tails.erase(tail->plan().path);
}

Result<> Repository::note_synced(const std::string& tail_path, std::uint32_t synced_frames) {
    return state_->index->note_synced(tail_path, synced_frames);
}

// What of a tail goes into one pack.
struct Repository::State::PackPart {
    int first_frame = 0, last_frame = 0;  // [first, last)
    int first_mark = 0, last_mark = 0;
    pb::WalSummary summary;
};

struct Repository::State::WrittenPack {
    std::unique_ptr<PackWriter> writer;
    pb::PackInfo info;
};

// Marks stand in the order in which their records end, and go where these end. A group of frames
// has at most kPackFrameBytes of WAL, and marks take less than three times the bytes of their
// records: so no footer gets larger than a frame can be.
std::vector<Repository::State::PackPart> Repository::State::cut_into_packs(
    const pb::PackFooter& footer) {
    constexpr std::size_t kFrameEntryBytes = 128;
    std::vector<PackPart> parts(1);
    std::size_t bytes = 0;
    for (int first = 0, last = 0; first < footer.frames_size(); first = last) {
        last = group_end(footer, first);
        const pb::FrameEntry& end = footer.frames(last - 1);
        std::size_t group_bytes = kFrameEntryBytes;
        int mark = parts.back().last_mark;
        while (mark < footer.marks_size() &&
               footer.marks(mark).end_lsn() <= end.start_lsn() + end.plain_bytes())
            group_bytes += footer.marks(mark++).ByteSizeLong() + 4;
        if (first > parts.back().first_frame && bytes + group_bytes > kFooterBytesGoal) {
            const int next_mark = parts.back().last_mark;
            parts.push_back({first, first, next_mark, next_mark, {}});
            bytes = 0;
        }
        for (int i = first; i < last; ++i)
            merge_summary(parts.back().summary, footer.frames(i).summary());
        parts.back().last_frame = last;
        parts.back().last_mark = mark;
        bytes += group_bytes;
    }
    parts.back().last_mark = footer.marks_size();
    return parts;
}

Result<Repository::State::WrittenPack> Repository::State::write_part(const PackReader& reader,
                                                                     const std::string& cluster,
                                                                     const PackPart& part,
                                                                     const std::string& path) {
    const pb::PackFooter& footer = reader.footer();
    FileHeader header = reader.cipher().header();
    header.file_id = random_id16();
    header.generation = generation;
    header.start_lsn = Lsn{footer.frames(part.first_frame).start_lsn()};
    WV_TRY(FileCipher cipher, new_cipher(pb::KEY_PURPOSE_WAL, header));
    // What a crash left of an earlier try.
    if (auto removed = files.remove(root + "/" + path + ".tmp");
        !removed && removed.error().code != Errc::not_found)
        return fail(removed.error());
    WrittenPack pack;
    WV_TRY(pack.writer, PackWriter::create(files, root, path, std::move(cipher)));
    ByteBuffer plain;
    Lsn end = header.start_lsn;
    for (int first = part.first_frame, last = 0; first < part.last_frame; first = last) {
        last = group_end(footer, first);
        WV_CHECK(reader.read_frames(*store, first, last, plain));
        end = end + plain.size();
        pb::FrameEntry entry = merged_entry(footer, first, last);
        entry.set_frame_number(pack.writer->next_frame_number());
        FramePlace place = PackReader::place_of(entry, StreamKind::wal);
        WV_CHECK(pack.writer->append(pack.writer->cipher().seal(place, plain, options.wal_level),
                                     std::move(entry)));
    }
    pack.writer->set_covered_until_us(part.summary.covered_until_us());
    pack.writer->add_marks(
        {footer.marks().begin() + part.first_mark, footer.marks().begin() + part.last_mark});
    WV_TRY(pack.info, pack.writer->finish(wal_pack_info(cluster, header, end, part.summary)));
    return pack;
}

Result<> Repository::State::close_from(const PackReader& reader, const pb::TailOpened& opened,
                                       const pb::WalSummary& summary, const std::string& pack_path,
                                       bool keep_tail) {
    std::vector<PackPart> parts = cut_into_packs(reader.footer());
    // With what no frame says: until when it was quiet behind the last one.
    merge_covered(parts.back().summary, summary);
    const FileHeader& header = reader.cipher().header();
    std::vector<WrittenPack> written;
    pb::LedgerEntry entry;
    Footers footers;
    for (const PackPart& part : parts) {
        std::string path = pack_path;
        if (parts.size() > 1)
            path = pack_path_of_tail(
                tail_name(opened.cluster(), header.history_id, header.timeline,
                          Lsn{reader.footer().frames(part.first_frame).start_lsn()}, generation,
                          next_serial++));
        WV_TRY(WrittenPack pack, write_part(reader, opened.cluster(), part, path));
        pb::PackClosed& closed = *entry.mutable_pack_closed();
        (written.empty() ? *closed.mutable_pack() : *closed.add_further()) = std::move(pack.info);
        footers.push_back(&pack.writer->footer());
        written.push_back(std::move(pack));
    }
    entry.mutable_pack_closed()->set_replaces_tail(opened.path());
    WV_CHECK(enter(std::move(entry), footers));
    const std::string tail = root + "/" + opened.path();
    // Whole frames may lie behind the damage: somebody may want to look.
    return keep_tail ? files.rename(tail, tail + ".damaged") : files.remove(tail);
}

Result<> Repository::close_tail(std::unique_ptr<TailWriter> tail, TailContent content) {
    State& state = *state_;
    std::shared_ptr<const TailPlan> plan(std::make_shared<const TailPlan>(tail->plan()));
    const FileHeader& header = plan->header();
    state.held_tails.erase(plan->path);
    pb::TailOpened opened;
    opened.set_cluster(plan->cluster);
    opened.set_path(plan->path);
    std::uint64_t plain = plain_bytes_of(content.footer);
    auto frames = static_cast<std::uint64_t>(content.footer.frames_size());
    if (frames == 0) {
        tail.reset();
        pb::LedgerEntry entry;
        entry.mutable_tail_abandoned()->set_path(plan->path);
        entry.mutable_tail_abandoned()->set_file_id(text_of(header.file_id));
        entry.mutable_tail_abandoned()->set_end_lsn(header.start_lsn.value);
        entry.mutable_tail_abandoned()->set_reason("no WAL was written to it");
        entry.mutable_tail_abandoned()->set_covered_until_us(content.summary.covered_until_us());
        WV_CHECK(state.enter(std::move(entry)));
        return state.files.remove(state.root + "/" + plan->path);
    }
    content.footer.set_format_version(kFormatVersion);
    content.footer.set_covered_until_us(content.summary.covered_until_us());
    if (plain / frames < kLargeFrameBytesMin ||
        content.footer.ByteSizeLong() > kFramePlainBytesMax) {
        tail.reset();
        PackReader reader(plan->path, plan->cipher, std::move(content.footer));
        return state.close_from(reader, opened, content.summary, pack_path_of_tail(plan->path),
                                false);
    }
    WV_TRY(pb::PackInfo info,
           tail->close_in_place(
               content.footer, content.frame_count,
               wal_pack_info(plan->cluster, header, content.end_lsn, content.summary)));
    pb::LedgerEntry entry;
    *entry.mutable_pack_closed()->mutable_pack() = std::move(info);
    entry.mutable_pack_closed()->set_replaces_tail(plan->path);
    return state.enter(std::move(entry), {&content.footer});
}

// A crash may fall between the rename to ".pack" and the ledger entry: the pack is whole, so it
// counts.
Result<std::optional<Lsn>> Repository::State::adopt_pack(const OpenTail& tail, Lsn tail_end) {
    pb::PackInfo wanted;
    wanted.set_path(pack_path_of_tail(tail.opened.path()));
    auto info = store->info(wanted.path());
    if (!info && info.error().code == Errc::not_found) return std::optional<Lsn>{};
    if (!info) return fail(info.error());
    WV_TRY(auto reader, PackReader::open(*store, wanted, keyring));
    const pb::PackFooter& footer = reader->footer();
    if (!is_pack_of_tail(reader->cipher().header(), tail.opened)) {
        log::error("store.foreign_pack", "it stands in a tail's place and is not its pack",
                   {{"pack", wanted.path()}});
        return std::optional<Lsn>{};
    }
    if (footer.frames_size() == 0) return std::optional<Lsn>{};
    const pb::FrameEntry& last = footer.frames(footer.frames_size() - 1);
    Lsn end{last.start_lsn() + last.plain_bytes()};
    if (end < tail_end) return std::optional<Lsn>{};
    pb::WalSummary summary = summary_of(footer);
    pb::PackInfo pack =
        wal_pack_info(tail.opened.cluster(), reader->cipher().header(), end, summary);
    WV_TRY(ByteBuffer trailer_bytes,
           store->get(wanted.path(), info->size_bytes - kPackTrailerBytes, kPackTrailerBytes));
    WV_TRY(PackTrailer trailer, decode_pack_trailer(trailer_bytes));
    WV_TRY(ByteBuffer sealed,
           store->get(wanted.path(), trailer.footer_offset, trailer.footer_bytes));
    pack.set_path(wanted.path());
    pack.set_file_id(text_of(reader->cipher().header().file_id));
    pack.set_stored_bytes(info->size_bytes);
    pack.set_frame_count(static_cast<std::uint64_t>(footer.frames_size()));
    pack.set_footer_offset(trailer.footer_offset);
    pack.set_footer_hash(text_of(reader->cipher().keyed_hash(sealed)));
    // Its sync may not have happened before the crash.
    WV_TRY(auto file, files.open_append(root + "/" + wanted.path()));
    WV_CHECK(file->sync_data());
    WV_CHECK(files.sync_directory(parent_directory(root + "/" + wanted.path())));
    pb::LedgerEntry entry;
    *entry.mutable_pack_closed()->mutable_pack() = std::move(pack);
    entry.mutable_pack_closed()->set_replaces_tail(tail.opened.path());
    WV_CHECK(enter(std::move(entry), {&footer}));
    return std::optional<Lsn>(end);
}

// What is left of a tail that nobody writes any more. `scanned` is empty where nothing can be read.
struct Repository::State::TailRemains {
    bool exists = false;
    bool damaged = false;
    std::optional<ScannedTail> scanned;
};

Result<Repository::State::TailRemains> Repository::State::examine_tail(const OpenTail& tail) {
    const std::string& path = tail.opened.path();
    auto info = store->info(path);
    if (!info && info.error().code != Errc::not_found) return fail(info.error());
    TailRemains remains{.exists = info.has_value()};
    if (!remains.exists && tail.synced_frames > 0)
        log::error("store.tail_missing", "the tail is gone; WAL from its start on is not stored",
                   {{"tail", path}, {"from_lsn", to_string(Lsn{tail.opened.start_lsn()})}});
    if (!remains.exists || info->size_bytes < kFileHeaderBytes) return remains;
    // A header that cannot be read is the tail's own damage. Any other error may be that of a pack
    // before it: then nothing is decided here.
    auto cipher = open_cipher(*store, path, keyring);
    if (!cipher && cipher.error().code != Errc::corrupt) return fail(cipher.error());
    std::optional<Error> damage;
    if (!cipher) damage = cipher.error();
    if (cipher) {
        WV_TRY(remains.scanned, wal->scan_continuation(tail.opened, tail.synced_frames));
        // What is judged torn here is removed for good: that is read twice too.
        if (remains.scanned->torn_bytes > 0 && !remains.scanned->damage) {
            WV_TRY(remains.scanned, wal->scan_continuation(tail.opened, tail.synced_frames));
        }
        damage = remains.scanned->damage;
        if (remains.scanned->torn_bytes > 0)
            log::info("store.tail_torn", "bytes after the last whole frame were never acknowledged",
                      {{"tail", path}, {"bytes", remains.scanned->torn_bytes}});
    }
    if (damage) log::error("store.tail_damaged", damage->message, {{"tail", path}});
    remains.damaged = damage.has_value();
    return remains;
}

Result<Lsn> Repository::State::recover_tail(const OpenTail& tail) {
    const std::string& path = tail.opened.path();
    WV_TRY(TailRemains remains, examine_tail(tail));
    Lsn start{tail.opened.start_lsn()};
    Lsn end = remains.scanned ? remains.scanned->end_lsn : start;
    WV_TRY(auto adopted, adopt_pack(tail, end));
    if (adopted) {
        if (remains.exists) WV_CHECK(files.remove(root + "/" + path));
        return *adopted;
    }
    if (remains.scanned && remains.scanned->reader->frame_count() > 0) {
        std::string pack_path = pack_path_of_tail(
            tail_name(tail.opened.cluster(), remains.scanned->header.history_id,
                      remains.scanned->header.timeline, start, generation, next_serial++));
        WV_CHECK(close_from(*remains.scanned->reader, tail.opened, remains.scanned->summary,
                            pack_path, remains.damaged));
        return end;
    }
    pb::LedgerEntry entry;
    entry.mutable_tail_abandoned()->set_path(path);
    entry.mutable_tail_abandoned()->set_file_id(tail.opened.file_id());
    entry.mutable_tail_abandoned()->set_end_lsn(start.value);
    entry.mutable_tail_abandoned()->set_reason(!remains.exists   ? "the file is missing"
                                               : remains.damaged ? "it is damaged"
                                                                 : "no whole WAL frame in it");
    if (remains.scanned)
        entry.mutable_tail_abandoned()->set_covered_until_us(
            remains.scanned->summary.covered_until_us());
    WV_CHECK(enter(std::move(entry)));
    if (remains.exists && remains.damaged)
        WV_CHECK(files.rename(root + "/" + path, root + "/" + path + ".damaged"));
    else if (remains.exists)
        WV_CHECK(files.remove(root + "/" + path));
    return start;
}

// What lies between a damaged tail and the next one of its history was there and is lost.
Result<> Repository::State::enter_lost_wal(const pb::TailOpened& tail, Lsn from, Lsn to) {
    pb::LedgerEntry entry;
    pb::GapFound& gap = *entry.mutable_gap_found();
    gap.set_cluster(tail.cluster());
    gap.set_history_id(tail.history_id());
    gap.set_timeline(tail.timeline());
    gap.set_from_lsn(from.value);
    gap.set_to_lsn(to.value);
    gap.set_cause("the tail " + tail.path() + " is damaged");
    return enter(std::move(entry));
}

Result<> Repository::recover_tails() {
    WV_CHECK(state_->catch_index_up());
    WV_TRY(auto tails, state_->index->open_tails());
    std::erase_if(tails, [this](const OpenTail& tail) {
        return state_->held_tails.contains(tail.opened.path());
    });
    for (const OpenTail& tail : tails) {
        WV_TRY(auto next, state_->wal->start_behind(tail.opened));
        WV_TRY(Lsn end, state_->recover_tail(tail));
        if (next && end < *next) WV_CHECK(state_->enter_lost_wal(tail.opened, end, *next));
    }
    return state_->recover_journal_tails();
}

}  // namespace walvault::storage
