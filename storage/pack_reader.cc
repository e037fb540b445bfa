#include "storage/pack_reader.h"

#include <algorithm>
#include <cstring>

#include "proto/server_version.h"

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

// Reads an object forward through one buffer, so that a tail of small frames is not a read each.
class ForwardReader {
public:
    ForwardReader(ObjectStore& store, const std::string& path, std::uint64_t size)
        : store_(store), path_(path), size_(size) {}
    // A view of `length` bytes at `offset`, shorter at the end; valid until the next call.
    Result<ByteSpan> view(std::uint64_t offset, std::uint64_t length) {
        length = std::min(length, size_ - std::min(offset, size_));
        if (offset < start_ || offset + length > start_ + buffer_.size()) {
            constexpr std::uint64_t kAheadBytes = 4 << 20;
            WV_TRY(buffer_, store_.get(path_, offset, std::max(length, kAheadBytes)));
            start_ = offset;
        }
        return ByteSpan(buffer_).subspan(offset - start_,
                                         std::min<std::uint64_t>(length, buffer_.size()));
    }

private:
    ObjectStore& store_;
    const std::string& path_;
    std::uint64_t size_;
    std::uint64_t start_ = 0;
    ByteBuffer buffer_;
};

class TailScan {
public:
    TailScan(ObjectStore& store, std::string path, FileCipher cipher, std::uint64_t size,
             WalTracker tracker)
        : path_(std::move(path)),
          cipher_(std::move(cipher)),
          size_(size),
          forward_(store, path_, size),
          tracker_(std::move(tracker)) {
        end_lsn_ = cipher_.header().start_lsn;
    }

    Result<ScannedTail> run(std::uint32_t witness, Lsn reached) {
        synced_frames_ = witness;
        while (offset_ < size_) {
            auto taken = take_frame();
            if (taken && *taken == Step::footer) break;
            if (taken) continue;
            if (taken.error().code != Errc::corrupt) return fail(taken.error());
            WV_TRY(const bool ahead, only_zeros_follow());
            if (ahead && !damage_) break;
            if (!damage_) WV_CHECK(look_behind(taken.error()));
            torn_bytes_ = size_ - offset_;
            break;
        }
        if (!damage_ && frame_number_ < synced_frames_)
            damage_ = Error{Errc::corrupt, path_ + " ends after " + std::to_string(frame_number_) +
                                               " frames, but " + std::to_string(synced_frames_) +
                                               " were synced: WAL from " + to_string(end_lsn_) +
                                               " on is lost"};
        if (!damage_ && end_lsn_ < reached)
            damage_ = Error{Errc::corrupt, path_ + " ends at " + to_string(end_lsn_) +
                                               ", but WAL up to " + to_string(reached) +
                                               " was synced before the next tail began"};
        return finish();
    }

private:
    enum class Step { frame, footer };

    Result<Step> take_frame() {
        WV_TRY(ByteSpan head, forward_.view(offset_, kFrameHeaderBytes));
        WV_TRY(FrameHeader header, decode_frame_header(head));
        if (header.kind == FrameKind::footer) return Step::footer;
        std::uint64_t stored = kFrameHeaderBytes + header.sealed_bytes;
        WV_TRY(ByteSpan sealed, forward_.view(offset_, stored));
        if (sealed.size() != stored)
            return fail(Errc::corrupt,
                        path_ + ": the file ends inside frame " + std::to_string(frame_number_));
        bool quiet = header.kind == FrameKind::quiet;
        FramePlace place{.kind = header.kind,
                         .frame_number = frame_number_,
                         .start = end_lsn_.value,
                         .end = end_lsn_.value + (quiet ? 0 : header.plain_bytes)};
        WV_CHECK(cipher_.unseal_into(place, sealed, plain_));
        synced_frames_ = std::max(synced_frames_, header.synced_frames);
        if (quiet)
            WV_CHECK(take_quiet());
        else
            WV_CHECK(take_wal(sealed));
        offset_ += stored;
        ++frame_number_;
        return Step::frame;
    }

    Result<> take_quiet() {
        if (plain_.size() != 8)
            return fail(Errc::corrupt, path_ + ": a quiet frame of another length than 8");
        std::int64_t until = load_le<std::int64_t>(plain_.data());
        summary_.set_covered_until_us(std::max(summary_.covered_until_us(), until));
        return {};
    }

    Result<> take_wal(ByteSpan sealed) {
        if (auto fed = tracker_.feed(plain_); !fed) {
            // Nobody but the writer can have sealed it: this is not what a crash leaves.
            damage_ = Error{Errc::corrupt,
                            path_ + ": frame " + std::to_string(frame_number_) +
                                " is authentic and its WAL is not: " + fed.error().message};
            return fed;
        }
        FrameNotes notes = tracker_.take_frame();
        pb::FrameEntry entry;
        entry.set_frame_number(frame_number_);
        entry.set_offset(offset_);
        entry.set_stored_bytes(static_cast<std::uint32_t>(sealed.size()));
        entry.set_plain_bytes(static_cast<std::uint32_t>(plain_.size()));
        entry.set_start_lsn(end_lsn_.value);
        entry.set_record_start_lsn(notes.record_start_lsn.value);
        entry.set_tag(std::string(as_text(sealed.last(kTagBytes))));
        merge_summary(summary_, notes.summary);
        *entry.mutable_summary() = std::move(notes.summary);
        *footer_.add_frames() = std::move(entry);
        for (pb::MarkEntry& mark : notes.marks)
            *footer_.add_marks() = std::move(mark);
        end_lsn_ = end_lsn_ + plain_.size();
        return {};
    }

    // Space that the writer wrote ahead.
    Result<bool> only_zeros_follow() {
        constexpr std::uint64_t kPieceBytes = 64 << 10;
        for (std::uint64_t at = offset_; at < size_;) {
            WV_TRY(ByteSpan piece, forward_.view(at, kPieceBytes));
            if (piece.empty()) break;  // cut off meanwhile
            const bool zeros = piece[0] == std::byte{} &&
                               std::memcmp(piece.data(), piece.data() + 1, piece.size() - 1) == 0;
            if (!zeros) return false;
            at += piece.size();
        }
        return true;
    }

    // A frame that does not check is the torn end of a crash unless a whole frame behind it says
    // that this one had been synced.
    Result<> look_behind(const Error& error) {
        for (std::uint64_t at = offset_ + 1; at + kFrameHeaderBytes <= size_; ++at) {
            WV_TRY(ByteSpan head, forward_.view(at, kFrameHeaderBytes));
            if (head.size() < kFrameHeaderBytes) break;
            if (head[0] != std::byte{'W'} || head[1] != std::byte{'V'}) continue;
            auto header = decode_frame_header(head);
            if (!header || header->synced_frames <= frame_number_) continue;
            if (!cipher_.vouches_for(*header)) continue;
            damage_ = Error{Errc::corrupt, path_ + ": frame " + std::to_string(frame_number_) +
                                               " (WAL from " + to_string(end_lsn_) +
                                               ") is damaged: " + error.message};
            break;
        }
        return {};
    }

    Result<ScannedTail> finish() {
        ScannedTail tail;
        tail.header = cipher_.header();
        tail.end_lsn = end_lsn_;
        tail.summary = summary_;
        tail.largest_at_us = tracker_.largest_at_us();
        tail.frame_count = frame_number_;
        tail.synced_frames = synced_frames_;
        tail.torn_bytes = torn_bytes_;
        tail.damage = std::move(damage_);
        footer_.set_format_version(kFormatVersion);
        tail.reader =
            std::make_shared<const PackReader>(path_, std::move(cipher_), std::move(footer_));
        return tail;
    }

    std::string path_;
    FileCipher cipher_;
    std::uint64_t size_;
    ForwardReader forward_;
    WalTracker tracker_;
    std::uint64_t offset_ = kFileHeaderBytes;
    std::uint32_t frame_number_ = 0;
    std::uint32_t synced_frames_ = 0;
    std::uint64_t torn_bytes_ = 0;
    std::optional<Error> damage_;
    Lsn end_lsn_;
    ByteBuffer plain_;
    pb::PackFooter footer_;
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
    TailScan scan(store, path, std::move(cipher), info.size_bytes, std::move(tracker));
    return scan.run(synced_frames_witness, options.reached_lsn);
}

}  // namespace walvault::storage
