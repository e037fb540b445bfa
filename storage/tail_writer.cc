#include "storage/tail_writer.h"

#include <algorithm>

namespace walvault::storage {
namespace {
constexpr std::uint64_t kAheadBytes = 1 << 20;
// With less left, zeros must not take the place of frames.
constexpr std::uint64_t kAvailableBytesMin = 64 << 20;
}  // namespace

std::string pack_path_of_tail(const std::string& tail_path) {
    constexpr std::string_view kTail = ".tail";
    WV_ASSERT(tail_path.ends_with(kTail));
    return tail_path.substr(0, tail_path.size() - kTail.size()) + ".pack";
}

Result<std::unique_ptr<TailWriter>> TailWriter::create(FileSystem& files, const std::string& root,
                                                       std::shared_ptr<const TailPlan> plan) {
    std::unique_ptr<TailWriter> tail(new TailWriter(files, root, std::move(plan)));
    std::string path = root + "/" + tail->plan_->path;
    std::string directory = parent_directory(path);
    WV_CHECK(files.make_directories(directory));
    WV_TRY(tail->file_, files.create(path));
    std::array<std::byte, kFileHeaderBytes> header;
    encode_file_header(tail->plan_->header(), header);
    WV_CHECK(tail->file_->write(header));
    WV_CHECK(tail->file_->sync_data());
    WV_CHECK(files.sync_directory(directory));
    WV_CHECK(files.sync_directory(parent_directory(directory)));
    WV_CHECK(files.sync_directory(root));
    tail->end_offset_ = kFileHeaderBytes;
    return tail;
}

Result<> TailWriter::append(ByteSpan sealed_frame) {
    WV_CHECK(file_->write_at(end_offset_, sealed_frame));
    end_offset_ += sealed_frame.size();
    return {};
}

Result<> TailWriter::write_ahead(std::uint64_t bytes) {
    if (end_offset_ + bytes <= ahead_offset_) return {};
    auto available = files_.available_bytes(root_);
    if (!available || *available < kAvailableBytesMin) return {};
    static const ByteBuffer zeros(kAheadBytes);
    const std::uint64_t from = std::max(end_offset_, ahead_offset_);
    WV_CHECK(file_->write_at(from, zeros));
    ahead_offset_ = from + kAheadBytes;
    return {};
}

Result<> TailWriter::sync() { return file_->sync_data(); }

Result<pb::PackInfo> TailWriter::close_in_place(const pb::PackFooter& footer,
                                                std::uint32_t frame_number, pb::PackInfo info) {
    WV_TRY(SealedFooter sealed, seal_footer(plan_->cipher, footer, end_offset_, frame_number));
    // Before the footer makes it longer again: then its sync says the size too.
    if (ahead_offset_ > end_offset_) WV_CHECK(file_->truncate(end_offset_));
    WV_CHECK(file_->write_at(end_offset_, sealed.bytes));
    WV_CHECK(file_->sync_data());
    std::string from = root_ + "/" + plan_->path;
    std::string to = pack_path_of_tail(plan_->path);
    WV_CHECK(files_.rename(from, root_ + "/" + to));
    WV_CHECK(files_.sync_directory(parent_directory(from)));
    info.set_path(to);
    info.set_file_id(std::string(as_text(plan_->header().file_id)));
    info.set_stored_bytes(end_offset_ + sealed.bytes.size());
    info.set_frame_count(static_cast<std::uint64_t>(footer.frames_size()));
    info.set_footer_offset(end_offset_);
    info.set_footer_hash(std::string(as_text(sealed.hash)));
    return info;
}

}  // namespace walvault::storage
