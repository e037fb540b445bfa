#include "storage/tail_writer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace walvault::storage {
namespace {
constexpr std::uint64_t kAheadBytes = 1 << 20;
// With less left, zeros must not take the place of frames.
constexpr std::uint64_t kAvailableBytesMin = 64 << 20;
// As File::write_at() wants what it is to write past the page cache.
constexpr std::size_t kBlockBytes = 4096;

ByteSpan zeros_of(std::size_t count) {
    alignas(kBlockBytes) static std::array<std::byte, kAheadBytes> zeros;
    return ByteSpan(zeros).first(count);
}

// Whole blocks that are gathered for one write; one per thread.
class Staging {
public:
    static constexpr std::size_t kBytes = 4 << 20;

    Staging() : bytes_(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, kBytes))) {
        WV_ASSERT(bytes_ != nullptr);
    }
    // As much of `bytes` as there is room for; returns how much that is.
    std::size_t fill(ByteSpan bytes) {
        const std::size_t count = std::min(bytes.size(), kBytes - used_);
        std::memcpy(bytes_.get() + used_, bytes.data(), count);
        used_ += count;
        return count;
    }
    bool is_full() const { return used_ == kBytes; }
    // What was filled in, with zeros up to a whole block; then empty again.
    ByteSpan take() {
        const std::size_t whole = (used_ + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
        std::memset(bytes_.get() + used_, 0, whole - used_);
        used_ = 0;
        return {bytes_.get(), whole};
    }
    void clear() { used_ = 0; }

private:
    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };
    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t used_ = 0;
};
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
    tail->note_appended(header);
    return tail;
}

void TailWriter::note_appended(ByteSpan bytes) {
    end_offset_ += bytes.size();
    const std::size_t count = end_offset_ % kBlockBytes;
    if (bytes.size() >= count) {
        last_block_.assign(bytes.end() - static_cast<std::ptrdiff_t>(count), bytes.end());
    } else {
        walvault::append(last_block_, bytes);
    }
}

Result<> TailWriter::append(ByteSpan sealed_frame) {
    WV_CHECK(file_->write_at(end_offset_, sealed_frame));
    note_appended(sealed_frame);
    return {};
}

// The block that the frames before end in is written again, with the same bytes in front: as the
// kernel would from its cache.
Result<> TailWriter::append_past_cache(std::span<const ByteSpan> sealed_frames) {
    thread_local Staging staging;
    staging.clear();
    std::uint64_t offset = end_offset_ - last_block_.size();
    staging.fill(last_block_);
    for (ByteSpan frame : sealed_frames) {
        note_appended(frame);
        while (!frame.empty()) {
            frame = frame.subspan(staging.fill(frame));
            if (!staging.is_full()) continue;
            WV_CHECK(file_->write_at(offset, staging.take()));
            offset += Staging::kBytes;
        }
    }
    const ByteSpan rest = staging.take();
    if (!rest.empty()) WV_CHECK(file_->write_at(offset, rest));
    ahead_offset_ = std::max(ahead_offset_, offset + rest.size());
    return {};
}

Result<> TailWriter::write_ahead(std::uint64_t bytes) {
    if (end_offset_ + bytes <= ahead_offset_) return {};
    auto available = files_.available_bytes(root_);
    if (!available || *available < kAvailableBytesMin) return {};
    const std::uint64_t from = std::max(end_offset_, ahead_offset_);
    const std::uint64_t block = (from + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    if (from < block) WV_CHECK(file_->write_at(from, zeros_of(block - from)));
    WV_CHECK(file_->write_at(block, zeros_of(kAheadBytes)));
    ahead_offset_ = block + kAheadBytes;
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
