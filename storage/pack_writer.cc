#include "storage/pack_writer.h"

namespace walvault::storage {
namespace {
// Spread over the writing, so that the last sync does not hold up the disk for a whole pack.
constexpr std::uint64_t kSyncEveryBytes = 16 << 20;
}  // namespace

std::string parent_directory(const std::string& path) {
    std::size_t slash = path.find_last_of('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string tag_of(ByteSpan sealed_frame) {
    return std::string(as_text(sealed_frame.last(kTagBytes)));
}

Result<SealedFooter> seal_footer(const FileCipher& cipher, const pb::PackFooter& footer,
                                 std::uint64_t footer_offset, std::uint32_t frame_number) {
    std::string plain = footer.SerializeAsString();
    if (plain.size() > kFramePlainBytesMax)
        return fail(Errc::invalid_argument,
                    "the footer of " + std::to_string(footer.frames_size()) + " frames and " +
                        std::to_string(footer.marks_size()) + " marks has " +
                        std::to_string(plain.size()) + " bytes, more than the " +
                        std::to_string(kFramePlainBytesMax) + " a frame can hold");
    FramePlace place{.kind = FrameKind::footer, .frame_number = frame_number, .final = true};
    SealedFooter sealed;
    sealed.bytes = cipher.seal(place, as_bytes(plain), kFooterLevel);
    sealed.hash = cipher.keyed_hash(sealed.bytes);
    std::array<std::byte, kPackTrailerBytes> trailer;
    PackTrailer values{.footer_offset = footer_offset,
                       .footer_bytes = static_cast<std::uint32_t>(sealed.bytes.size())};
    encode_pack_trailer(values, trailer);
    append(sealed.bytes, trailer);
    return sealed;
}

Result<std::unique_ptr<PackWriter>> PackWriter::create(FileSystem& files, const std::string& root,
                                                       const std::string& path, FileCipher cipher) {
    std::unique_ptr<PackWriter> writer(new PackWriter(files, root, path, std::move(cipher)));
    std::string temporary = root + "/" + path + ".tmp";
    std::string directory = parent_directory(temporary);
    WV_CHECK(files.make_directories(directory));
    // Also where they were there: who made them may have crashed before its sync.
    WV_CHECK(files.sync_directory(parent_directory(directory)));
    WV_CHECK(files.sync_directory(root));
    WV_TRY(writer->file_, files.create(temporary));
    std::array<std::byte, kFileHeaderBytes> header;
    encode_file_header(writer->cipher_.header(), header);
    WV_CHECK(writer->file_->write(header));
    writer->end_offset_ = kFileHeaderBytes;
    writer->footer_.set_format_version(kFormatVersion);
    return writer;
}

PackWriter::~PackWriter() {
    if (finished_ || !file_) return;
    // Nothing refers to it: an unfinished pack is removed now or, after a crash, at the next start.
    file_.reset();
    (void)files_.remove(root_ + "/" + path_ + ".tmp");
}

Result<> PackWriter::append(ByteSpan sealed_frame, pb::FrameEntry entry) {
    entry.set_offset(end_offset_);
    entry.set_stored_bytes(static_cast<std::uint32_t>(sealed_frame.size()));
    entry.set_tag(tag_of(sealed_frame));
    plain_bytes_ += entry.plain_bytes();
    *footer_.add_frames() = std::move(entry);
    return write(sealed_frame);
}

Result<> PackWriter::append_keys(ByteSpan sealed_frame, pb::KeyBlock block) {
    block.set_offset(end_offset_);
    block.set_stored_bytes(static_cast<std::uint32_t>(sealed_frame.size()));
    block.set_tag(tag_of(sealed_frame));
    *footer_.add_key_blocks() = std::move(block);
    return write(sealed_frame);
}

Result<> PackWriter::write(ByteSpan bytes) {
    WV_CHECK(file_->write(bytes));
    end_offset_ += bytes.size();
    unsynced_bytes_ += bytes.size();
    if (unsynced_bytes_ < kSyncEveryBytes) return {};
    unsynced_bytes_ = 0;
    return file_->sync_data();
}

void PackWriter::add_marks(const std::vector<pb::MarkEntry>& marks) {
    for (const pb::MarkEntry& mark : marks)
        *footer_.add_marks() = mark;
}

Result<pb::PackInfo> PackWriter::finish(pb::PackInfo info) {
    WV_TRY(SealedFooter sealed, seal_footer(cipher_, footer_, end_offset_, next_frame_number()));
    WV_CHECK(file_->write(sealed.bytes));
    WV_CHECK(file_->sync_data());
    std::string final_path = root_ + "/" + path_;
    WV_CHECK(files_.rename(final_path + ".tmp", final_path));
    WV_CHECK(files_.sync_directory(parent_directory(final_path)));
    finished_ = true;
    info.set_path(path_);
    info.set_file_id(std::string(as_text(cipher_.header().file_id)));
    info.set_plain_bytes(plain_bytes_);
    info.set_stored_bytes(end_offset_ + sealed.bytes.size());
    info.set_frame_count(static_cast<std::uint64_t>(footer_.frames_size()));
    info.set_footer_offset(end_offset_);
    info.set_footer_hash(std::string(as_text(sealed.hash)));
    return info;
}

}  // namespace walvault::storage
