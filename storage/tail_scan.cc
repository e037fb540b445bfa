#include "storage/tail_scan.h"

#include <algorithm>
#include <cstring>

namespace walvault::storage {

TailScan::TailScan(ObjectStore& store, std::string path, FileCipher cipher, std::uint64_t size,
                   std::string content)
    : end_lsn_(cipher.header().start_lsn),
      path_(std::move(path)),
      content_(std::move(content)),
      cipher_(std::move(cipher)),
      size_(size),
      forward_(store, path_, size) {}

Result<ByteSpan> TailScan::ForwardReader::view(std::uint64_t offset, std::uint64_t length) {
    length = std::min(length, size_ - std::min(offset, size_));
    if (offset < start_ || offset + length > start_ + buffer_.size()) {
        constexpr std::uint64_t kAheadBytes = 4 << 20;
        WV_TRY(buffer_, store_.get(path_, offset, std::max(length, kAheadBytes)));
        start_ = offset;
    }
    return ByteSpan(buffer_).subspan(offset - start_,
                                     std::min<std::uint64_t>(length, buffer_.size()));
}

Result<> TailScan::run(std::uint32_t witness, Lsn reached) {
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
    compare_with(reached);
    return {};
}

void TailScan::compare_with(Lsn reached) {
    if (!damage_ && frame_number_ < synced_frames_)
        damage_ = Error{Errc::corrupt, path_ + " ends after " + std::to_string(frame_number_) +
                                           " frames, but " + std::to_string(synced_frames_) +
                                           " were synced: " + content_ + " from " +
                                           to_string(end_lsn_) + " on is lost"};
    if (!damage_ && end_lsn_ < reached)
        damage_ = Error{Errc::corrupt, path_ + " ends at " + to_string(end_lsn_) + ", but " +
                                           content_ + " up to " + to_string(reached) +
                                           " was synced before the next tail began"};
}

Result<TailScan::Step> TailScan::take_frame() {
    WV_TRY(ByteSpan head, forward_.view(offset_, kFrameHeaderBytes));
    WV_TRY(FrameHeader header, decode_frame_header(head));
    if (header.kind == FrameKind::footer) return Step::footer;
    if (header.kind == FrameKind::keys)
        return fail(Errc::corrupt, path_ + ": a key block in a tail");
    std::uint64_t stored = kFrameHeaderBytes + header.sealed_bytes;
    WV_TRY(ByteSpan sealed, forward_.view(offset_, stored));
    if (sealed.size() != stored)
        return fail(Errc::corrupt,
                    path_ + ": the file ends inside frame " + std::to_string(frame_number_));
    FramePlace place{.kind = header.kind,
                     .frame_number = frame_number_,
                     .start = end_lsn_.value,
                     .end = frame_end(header).value};
    WV_CHECK(cipher_.unseal_into(place, sealed, plain_));
    synced_frames_ = std::max(synced_frames_, header.synced_frames);
    if (header.kind == FrameKind::quiet) {
        WV_CHECK(take_quiet(plain_));
    } else {
        pb::FrameEntry entry;
        entry.set_frame_number(frame_number_);
        entry.set_offset(offset_);
        entry.set_stored_bytes(static_cast<std::uint32_t>(sealed.size()));
        entry.set_plain_bytes(static_cast<std::uint32_t>(plain_.size()));
        entry.set_start_lsn(end_lsn_.value);
        entry.set_tag(std::string(as_text(sealed.last(kTagBytes))));
        WV_CHECK(take_content(plain_, std::move(entry)));
    }
    offset_ += stored;
    ++frame_number_;
    return Step::frame;
}

// Space that the writer wrote ahead.
Result<bool> TailScan::only_zeros_follow() {
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
Result<> TailScan::look_behind(const Error& error) {
    for (std::uint64_t at = offset_ + 1; at + kFrameHeaderBytes <= size_; ++at) {
        WV_TRY(ByteSpan head, forward_.view(at, kFrameHeaderBytes));
        if (head.size() < kFrameHeaderBytes) break;
        if (head[0] != std::byte{'W'} || head[1] != std::byte{'V'}) continue;
        auto header = decode_frame_header(head);
        if (!header || header->synced_frames <= frame_number_) continue;
        if (!cipher_.vouches_for(*header)) continue;
        damage_ = Error{Errc::corrupt, path_ + ": frame " + std::to_string(frame_number_) + " (" +
                                           content_ + " from " + to_string(end_lsn_) +
                                           ") is damaged: " + error.message};
        break;
    }
    return {};
}

std::shared_ptr<const PackReader> TailScan::take_reader() {
    footer_.set_format_version(kFormatVersion);
    return std::make_shared<const PackReader>(path_, std::move(cipher_), std::move(footer_));
}

}  // namespace walvault::storage
