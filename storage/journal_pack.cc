#include "storage/journal_pack.h"

#include <sodium.h>

#include <algorithm>

#include "proto/journal_columns.h"
#include "storage/repository_files.h"
#include "storage/wal_summary.h"

namespace walvault::storage {
namespace {

constexpr std::size_t kPlacesMax = (32 << 20) / sizeof(KeyPlace);
constexpr std::size_t kPlacesPerBlock = 8192;

}  // namespace

KeyHash::KeyHash(const FileCipher& cipher) : key_(cipher.derived_key("walvault journal keys 1")) {
    static_assert(sizeof key_ == crypto_shorthash_KEYBYTES);
    static_assert(crypto_shorthash_BYTES == 8);
}

std::uint32_t KeyHash::operator()(ByteSpan encoded_key) const {
    std::array<unsigned char, crypto_shorthash_BYTES> hash;
    crypto_shorthash(hash.data(), reinterpret_cast<const unsigned char*>(encoded_key.data()),
                     encoded_key.size(), reinterpret_cast<const unsigned char*>(key_.data()));
    return load_le<std::uint32_t>(reinterpret_cast<const std::byte*>(hash.data()) + 4);
}

std::vector<bool> completed_batches(const pb::PackFooter& footer) {
    std::vector<bool> completed(static_cast<std::size_t>(footer.frames_size()));
    bool goes_on_to_commit = false;  // of the frame behind
    for (int i = footer.frames_size() - 1; i >= 0; --i) {
        const pb::FrameEntry& frame = footer.frames(i);
        completed[static_cast<std::size_t>(i)] = frame.journal().open() && goes_on_to_commit;
        // The first commit in a batch that goes on is that of the transaction it goes on with.
        goes_on_to_commit =
            frame.journal().goes_on() && (frame.summary().commit_count() > 0 || goes_on_to_commit);
    }
    return completed;
}

Result<std::unique_ptr<JournalPackWriter>> JournalPackWriter::create(FileSystem& files,
                                                                     const std::string& root,
                                                                     const std::string& path,
                                                                     FileCipher cipher, int level) {
    WV_TRY(auto pack, PackWriter::create(files, root, path, std::move(cipher)));
    return std::unique_ptr<JournalPackWriter>(new JournalPackWriter(std::move(pack), level));
}

Result<> JournalPackWriter::append(ByteSpan batch, Lsn start_lsn) {
    WV_TRY(BatchFacts facts, describe_batch(batch, tables_));
    FramePlace place{.frame_number = pack_->next_frame_number(),
                     .start = start_lsn.value,
                     .end = start_lsn.value};
    pb::FrameEntry entry;
    entry.set_frame_number(place.frame_number);
    entry.set_start_lsn(start_lsn.value);
    if (facts.frame.end_lsn() == 0) facts.frame.set_end_lsn(start_lsn.value);
    for (const pb::JournalCount& count : facts.frame.counts())
        row_count_ += count.rows();
    if (facts.summary.commit_count() > 0) {
        merge_summary(summary_, facts.summary);
        *entry.mutable_summary() = std::move(facts.summary);
    }
    *entry.mutable_journal() = std::move(facts.frame);
    WV_TRY(const auto columns, to_columns(batch));
    const ByteSpan plain = columns ? ByteSpan(columns->plain) : batch;
    const std::vector<std::size_t> cuts = columns ? columns->cuts : std::vector<std::size_t>();
    entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
    footer_bytes_ += entry.ByteSizeLong() + 40;
    WV_CHECK(pack_->append(pack_->cipher().seal(place, plain, level_, cuts), std::move(entry)));
    return note_keys(batch, place.frame_number);
}

Result<> JournalPackWriter::note_keys(ByteSpan batch, std::uint32_t frame_number) {
    WV_TRY(BatchReader reader, BatchReader::open(batch));
    std::vector<std::vector<std::uint32_t>> columns;
    for (const pb::JournalRelation& relation : reader.relations())
        columns.push_back(key_columns(relation));
    JournalRecordView record;
    const auto note = [&](ByteSpan key) {
        for (std::uint32_t frame : part_frames_)
            places_.push_back({hash_(key), frame});
        places_.push_back({hash_(key), frame_number});
    };
    for (;;) {
        WV_TRY(bool more, reader.next(record));
        if (!more) break;
        const bool is_part = record.kind == JournalRecordKind::part;
        if (is_part) {
            WV_TRY(bool whole, joiner_.add(record));
            if (!whole) {
                part_frames_.push_back(frame_number);
                continue;
            }
            WV_TRY(record, reader.read_joined(record, joiner_.body()));
        }
        if (!record.old_tuple.empty() || !record.new_tuple.empty())
            WV_CHECK(each_journal_key(reader.relations()[record.relation].oid(),
                                      columns[record.relation], record, note));
        if (is_part) part_frames_.clear();
    }
    return places_.size() >= kPlacesMax ? write_keys() : Result<>{};
}

// A run of blocks, sorted in itself: who looks for a hash reads one block of each run.
Result<> JournalPackWriter::write_keys() {
    std::ranges::sort(places_);
    places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
    for (std::size_t first = 0; first < places_.size(); first += kPlacesPerBlock) {
        const std::span<const KeyPlace> part(places_.data() + first,
                                             std::min(kPlacesPerBlock, places_.size() - first));
        const EncodedKeyBlock keys = encode_key_block(part);
        FramePlace place{.kind = FrameKind::keys, .frame_number = pack_->next_frame_number()};
        pb::KeyBlock block;
        block.set_first_hash(part.front().hash);
        block.set_last_hash(part.back().hash);
        block.set_frame_number(place.frame_number);
        block.set_plain_bytes(static_cast<std::uint32_t>(keys.plain.size()));
        footer_bytes_ += block.ByteSizeLong() + 40;
        WV_CHECK(pack_->append_keys(
            pack_->cipher().seal(place, keys.plain, level_, std::span(&keys.cut, 1)),
            std::move(block)));
    }
    places_.clear();
    places_.shrink_to_fit();
    return {};
}

bool JournalPackWriter::is_full() const {
    return footer_bytes_ >= kFooterBytesGoal || pack_->next_frame_number() >= kPackFramesMax;
}

Result<pb::PackInfo> JournalPackWriter::finish(pb::PackInfo info) {
    if (joiner_.is_waiting()) return fail(Errc::corrupt, "a journal's pack ends inside of a row");
    WV_CHECK(write_keys());
    pack_->set_tables(tables_.tables());
    *info.mutable_summary() = summary_;
    return pack_->finish(std::move(info));
}

}  // namespace walvault::storage
