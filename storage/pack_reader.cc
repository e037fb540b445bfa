#include "storage/pack_reader.h"

#include <algorithm>

#include "proto/server_version.h"
#include "storage/tail_scan.h"

namespace walvault::storage {
namespace {

std::string frame_name(const std::string& path, int index) {
    return path + ", frame " + std::to_string(index);
}

Result<pb::PackFooter> read_footer(ObjectStore& store, const std::string& path, std::uint64_t size,
                                   const FileCipher& cipher, const pb::PackInfo& expected) {
    if (size < kFileHeaderBytes + kPackTrailerBytes)
        return fail(Errc::corrupt,
                    path + " has " + std::to_string(size) + " bytes: too short for a pack");
    WV_TRY(ByteBuffer tail, store.get(path, size - kPackTrailerBytes, kPackTrailerBytes));
    WV_TRY(PackTrailer trailer, decode_pack_trailer(tail));
    if (trailer.footer_offset + trailer.footer_bytes + kPackTrailerBytes != size)
        return fail(Errc::corrupt, path + ": its trailer does not describe a file of " +
                                       std::to_string(size) + " bytes");
    WV_TRY(ByteBuffer sealed, store.get(path, trailer.footer_offset, trailer.footer_bytes));
    if (!expected.footer_hash().empty() &&
        as_text(cipher.keyed_hash(sealed)) != std::string_view(expected.footer_hash()))
        return fail(Errc::corrupt, path + ": its footer is not the one the ledger names");
    WV_TRY(FrameHeader header, decode_frame_header(sealed));
    FramePlace place{.kind = FrameKind::footer, .frame_number = header.frame_number, .final = true};
    WV_TRY(ByteBuffer plain, cipher.unseal(place, sealed));
    pb::PackFooter footer;
    if (!footer.ParseFromArray(plain.data(), static_cast<int>(plain.size())))
        return fail(Errc::corrupt, path + ": its footer cannot be read");
    if (footer.format_version() != kFormatVersion)
        return fail(Errc::unsupported, path + ": footer version " +
                                           std::to_string(footer.format_version()) +
                                           " is not known to this walvault");
    return footer;
}

}  // namespace

Result<FileCipher> open_cipher(ObjectStore& store, const std::string& path,
                               const Keyring& keyring) {
    WV_TRY(ByteBuffer bytes, store.get(path, 0, kFileHeaderBytes));
    auto header = decode_file_header(bytes);
    if (!header) return fail_while(path, header.error());
    const DataKey* key = keyring.find(header->key_id);
    if (key == nullptr)
        return fail(Errc::wrong_key, path + " is sealed under data key " + to_hex(header->key_id) +
                                         ", which the keyring does not have");
    auto cipher = FileCipher::for_existing_file(*key, *header);
    if (!cipher) return fail_while(path, cipher.error());
    return cipher;
}

Result<std::shared_ptr<const PackReader>> PackReader::open(ObjectStore& store,
                                                           const pb::PackInfo& expected,
                                                           const Keyring& keyring) {
    const std::string& path = expected.path();
    auto found = store.info(path);
    // The ledger says that it was stored: its absence is damage, not an answer.
    if (!found && found.error().code == Errc::not_found)
        return fail(Errc::corrupt, "the pack " + path + " is missing from " + store.url(),
                    "bring it back from another copy of this repository");
    WV_TRY(const ObjectInfo info, std::move(found));
    WV_TRY(FileCipher cipher, open_cipher(store, path, keyring));
    auto footer = read_footer(store, path, info.size_bytes, cipher, expected);
    if (!footer) return fail_while("open pack " + path, footer.error());
    return std::make_shared<const PackReader>(path, std::move(cipher), std::move(*footer));
}

FramePlace PackReader::place_of(const pb::FrameEntry& entry, StreamKind stream) {
    FramePlace place;
    place.frame_number = entry.frame_number();
    if (stream == StreamKind::wal) {
        place.start = entry.start_lsn();
        place.end = entry.start_lsn() + entry.plain_bytes();
    }
    if (stream == StreamKind::journal) place.start = place.end = entry.start_lsn();
    if (entry.content_id().size() == place.content_id.size())
        std::ranges::copy(as_bytes(entry.content_id()), place.content_id.begin());
    return place;
}

Result<> PackReader::unseal_frame(int index, ByteSpan sealed, ByteBuffer& plain) const {
    const pb::FrameEntry& entry = footer_.frames(index);
    if (sealed.size() != entry.stored_bytes())
        return fail(Errc::corrupt, frame_name(path_, index) + ": the file ends before it");
    if (sealed.size() < kTagBytes ||
        std::string_view(entry.tag()) != as_text(sealed.last(kTagBytes)))
        return fail(Errc::corrupt, frame_name(path_, index) + " is not the frame the footer names");
    auto unsealed = cipher_.unseal_into(place_of(entry, cipher_.header().stream), sealed, plain);
    if (!unsealed) return fail_while(path_, unsealed.error());
    if (plain.size() != entry.plain_bytes())
        return fail(Errc::corrupt,
                    frame_name(path_, index) + " has another length than its footer says");
    return {};
}

Result<> PackReader::read_frame(ObjectStore& store, int index, ByteBuffer& plain) const {
    const pb::FrameEntry& entry = footer_.frames(index);
    WV_TRY(ByteBuffer sealed, store.get(path_, entry.offset(), entry.stored_bytes()));
    return unseal_frame(index, sealed, plain);
}

Result<> PackReader::read_batch(ObjectStore& store, int index, ByteBuffer& batch,
                                const RowSought* sought) const {
    WV_CHECK(read_frame(store, index, batch));
    if (!is_columns(batch)) return {};
    const ByteBuffer columns = std::move(batch);
    auto read = from_columns(columns, batch, sought);
    return read ? read : fail_while(frame_name(path_, index), read.error());
}

Result<> PackReader::read_keys(ObjectStore& store, int index, ByteBuffer& plain) const {
    const pb::KeyBlock& block = footer_.key_blocks(index);
    const std::string name = path_ + ", key block " + std::to_string(index);
    WV_TRY(ByteBuffer sealed, store.get(path_, block.offset(), block.stored_bytes()));
    if (sealed.size() != block.stored_bytes() || sealed.size() < kTagBytes ||
        std::string_view(block.tag()) != as_text(ByteSpan(sealed).last(kTagBytes)))
        return fail(Errc::corrupt, name + " is not the one the footer names");
    FramePlace place{.kind = FrameKind::keys, .frame_number = block.frame_number()};
    auto unsealed = cipher_.unseal_into(place, sealed, plain);
    return unsealed ? unsealed : fail_while(name, unsealed.error());
}

Result<> PackReader::read_frames(ObjectStore& store, int first, int last, ByteBuffer& plain) const {
    plain.clear();
    if (first == last) return {};
    const std::uint64_t from = footer_.frames(first).offset();
    const pb::FrameEntry& end = footer_.frames(last - 1);
    WV_TRY(ByteBuffer sealed, store.get(path_, from, end.offset() + end.stored_bytes() - from));
    ByteBuffer piece;
    for (int i = first; i < last; ++i) {
        const pb::FrameEntry& entry = footer_.frames(i);
        const std::uint64_t at = std::min<std::uint64_t>(entry.offset() - from, sealed.size());
        WV_CHECK(unseal_frame(i,
                              ByteSpan(sealed).subspan(at).first(std::min<std::uint64_t>(
                                  entry.stored_bytes(), sealed.size() - at)),
                              piece));
        append(plain, piece);
    }
    return {};
}

namespace {

class WalTailScan final : public TailScan {
public:
    WalTailScan(ObjectStore& store, std::string path, FileCipher cipher, std::uint64_t size,
                WalTracker tracker)
        : TailScan(store, std::move(path), std::move(cipher), size, "WAL"),
          tracker_(std::move(tracker)) {}

    Result<ScannedTail> scan(std::uint32_t witness, Lsn reached) {
        WV_CHECK(run(witness, reached));
        ScannedTail tail;
        tail.header = cipher().header();
        tail.end_lsn = end_lsn_;
        tail.summary = summary_;
        tail.largest_at_us = tracker_.largest_at_us();
        tail.frame_count = frame_number();
        tail.synced_frames = synced_frames();
        tail.torn_bytes = torn_bytes();
        tail.damage = std::move(damage_);
        tail.reader = take_reader();
        return tail;
    }

private:
    Lsn frame_end(const FrameHeader& header) const override {
        return end_lsn_ + (header.kind == FrameKind::quiet ? 0 : header.plain_bytes);
    }

    Result<> take_quiet(ByteSpan plain) override {
        if (plain.size() != 8)
            return fail(Errc::corrupt, path() + ": a quiet frame of another length than 8");
        std::int64_t until = load_le<std::int64_t>(plain.data());
        summary_.set_covered_until_us(std::max(summary_.covered_until_us(), until));
        return {};
    }

    Result<> take_content(ByteSpan plain, pb::FrameEntry entry) override {
        if (auto fed = tracker_.feed(plain); !fed) {
            // Nobody but the writer can have sealed it: this is not what a crash leaves.
            damage_ = Error{Errc::corrupt,
                            path() + ": frame " + std::to_string(frame_number()) +
                                " is authentic and its WAL is not: " + fed.error().message};
            return fed;
        }
        FrameNotes notes = tracker_.take_frame();
        entry.set_record_start_lsn(notes.record_start_lsn.value);
        merge_summary(summary_, notes.summary);
        *entry.mutable_summary() = std::move(notes.summary);
        *footer_.add_frames() = std::move(entry);
        for (pb::MarkEntry& mark : notes.marks)
            *footer_.add_marks() = std::move(mark);
        end_lsn_ = end_lsn_ + plain.size();
        return {};
    }

    WalTracker tracker_;
    pb::WalSummary summary_;
};

}  // namespace

Result<ScannedTail> scan_tail(ObjectStore& store, const std::string& path, const Keyring& keyring,
                              std::uint32_t synced_frames_witness, const TailScanOptions& options) {
    WV_TRY(ObjectInfo info, store.info(path));
    WV_TRY(FileCipher cipher, open_cipher(store, path, keyring));
    const FileHeader& header = cipher.header();
    WalDecoderOptions decoding{.server_major = server_major_of(header.server_version_num),
                               .system_identifier = header.system_identifier,
                               .segment_bytes = header.segment_bytes,
                               .timeline = header.timeline};
    WV_TRY(WalTracker tracker, WalTracker::open(decoding, options.decode_from,
                                                options.largest_at_us, header.start_lsn));
    if (options.prime) WV_CHECK(options.prime(tracker));
    WalTailScan scan(store, path, std::move(cipher), info.size_bytes, std::move(tracker));
    return scan.scan(synced_frames_witness, options.reached_lsn);
}

}  // namespace walvault::storage
