#include "agent/restore_files.h"

#include <algorithm>
#include <cstring>

#include "agent/render.h"

namespace walvault::agent {
namespace {

constexpr std::uint64_t kPieceBytes = 8_MiB;
constexpr std::size_t kQueuedPiecesMax = 4096;
constexpr std::size_t kIdBytes = 32;
constexpr std::uint32_t kChunkBytesMax = 8 << 20;
constexpr std::uint64_t kFileBytesMax = 1ull << 45;
constexpr const char* kControlPath = "global/pg_control";

// Written by the job itself, or not wanted in a copy.
bool is_left_out(const std::string& path) {
    return path == "tablespace_map" || path == "standby.signal" || path == "recovery.signal" ||
           path == "postmaster.pid" || path == "postmaster.opts";
}

Result<> require_consistent(const pb::ManifestFile& file) {
    const std::uint64_t ids = file.content_ids().size() / kIdBytes;
    if (file.content_ids().size() % kIdBytes == 0 && file.size_bytes() <= kFileBytesMax) {
        if (file.size_bytes() == 0 && ids == 0) return {};
        if (file.chunk_bytes() > 0 && file.chunk_bytes() <= kChunkBytesMax &&
            (file.size_bytes() + file.chunk_bytes() - 1) / file.chunk_bytes() == ids)
            return {};
    }
    return fail(Errc::corrupt, "the manifest's entry of " + printable(file.path()) +
                                   " does not fit: " + std::to_string(file.size_bytes()) +
                                   " bytes in " + std::to_string(ids) + " chunks of " +
                                   std::to_string(file.chunk_bytes()));
}

Id32 id_at(const std::string& ids, std::size_t index) {
    Id32 id;
    std::memcpy(id.data(), ids.data() + index * kIdBytes, kIdBytes);
    return id;
}

Result<> require_length(const std::string& path, std::uint64_t offset, std::uint64_t wanted,
                        std::uint64_t got) {
    if (wanted == got) return {};
    return fail(Errc::corrupt, printable(path) + " at byte " + std::to_string(offset) +
                                   ": the chunk has " + std::to_string(got) + " bytes, not " +
                                   std::to_string(wanted));
}

}  // namespace

bool is_all_zeros(ByteSpan bytes) {
    if (bytes.empty()) return true;
    // Each byte equals its neighbour and the first is zero: memcmp does this at memory speed.
    return bytes[0] == std::byte{0} &&
           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

RestoreFiles::RestoreFiles(storage::RepositoryView& view, const RestoreTree& tree, unsigned jobs)
    : view_(view), tree_(tree) {
    for (unsigned i = 0; i < std::max(1U, jobs); ++i)
        workers_.emplace_back([this] { work(); });
}

RestoreFiles::~RestoreFiles() {
    {
        std::lock_guard lock(mutex_);
        closed_ = true;
        queue_.clear();
    }
    changed_.notify_all();
    for (std::thread& worker : workers_)
        if (worker.joinable()) worker.join();
}

Result<> RestoreFiles::add(const pb::ManifestFile& file) {
    if (is_left_out(file.path())) return {};
    if (file.type() == pb::ManifestFile::DIRECTORY)
        return tree_.make_directory(file.path(), file.mode());
    // Links of tablespaces are made from the plan; PostgreSQL has no others that a backup carries.
    if (file.type() == pb::ManifestFile::SYMLINK) return {};
    WV_CHECK(require_consistent(file));
    if (file.path() == "backup_label") has_backup_label_ = true;
    if (file.path() == kControlPath) {
        control_ = file;
        return {};
    }
    auto open = std::make_shared<OpenFile>();
    open->path = file.path();
    open->mode = file.mode();
    open->size_bytes = file.size_bytes();
    if (file.size_bytes() == 0) return push(Piece{open, 0, 0, {}});
    const std::uint64_t per_piece = std::max<std::uint64_t>(1, kPieceBytes / file.chunk_bytes());
    const std::uint64_t count = file.content_ids().size() / kIdBytes;
    for (std::uint64_t first = 0; first < count; first += per_piece) {
        Piece piece{open, first * file.chunk_bytes(), file.chunk_bytes(),
                    file.content_ids().substr(first * kIdBytes, per_piece * kIdBytes)};
        WV_CHECK(push(std::move(piece)));
    }
    return {};
}

Result<> RestoreFiles::push(Piece piece) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return error_ || queue_.size() < kQueuedPiecesMax; });
    if (error_) return fail(*error_);
    queue_.push_back(std::move(piece));
    lock.unlock();
    changed_.notify_all();
    return {};
}

Result<> RestoreFiles::finish(const std::function<void()>& on_wait) {
    std::unique_lock lock(mutex_);
    while (!error_ && (!queue_.empty() || busy_ > 0)) {
        changed_.wait_for(lock, std::chrono::milliseconds(50));
        lock.unlock();
        on_wait();
        lock.lock();
    }
    if (error_) return fail(*error_);
    return {};
}

void RestoreFiles::work() {
    ByteBuffer plain;
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return closed_ || error_ || !queue_.empty(); });
        if (closed_ || error_) return;
        Piece piece = std::move(queue_.front());
        queue_.pop_front();
        ++busy_;
        lock.unlock();
        auto restored = restore_piece(piece, plain);
        piece = Piece{};
        lock.lock();
        --busy_;
        if (!restored && !error_) error_ = std::move(restored).error();
        changed_.notify_all();
    }
}

Result<> RestoreFiles::open_once(OpenFile& file) const {
    std::lock_guard lock(file.mutex);
    if (file.file.is_open()) return {};
    WV_TRY(file.file, tree_.create_file(file.path, file.mode));
    if (file.size_bytes > 0) WV_CHECK(file.file.set_size(file.size_bytes));
    return {};
}

Result<> RestoreFiles::restore_piece(Piece& piece, ByteBuffer& plain) {
    OpenFile& file = *piece.file;
    WV_CHECK(open_once(file));
    std::uint64_t offset = piece.offset;
    for (std::size_t i = 0; i < piece.content_ids.size() / kIdBytes; ++i) {
        if (auto read = view_.read_chunk(id_at(piece.content_ids, i), plain); !read)
            return fail_while(printable(file.path) + " at byte " + std::to_string(offset),
                              read.error());
        const std::uint64_t wanted =
            std::min<std::uint64_t>(piece.chunk_bytes, file.size_bytes - offset);
        WV_CHECK(require_length(file.path, offset, wanted, plain.size()));
        if (!is_all_zeros(plain)) WV_CHECK(file.file.write_at(offset, plain));
        offset += plain.size();
        done_bytes_.fetch_add(plain.size(), std::memory_order_relaxed);
    }
    return {};
}

Result<ByteBuffer> RestoreFiles::control_file() {
    if (!control_)
        return fail(Errc::corrupt, "the base has no global/pg_control; it cannot be started");
    ByteBuffer content;
    ByteBuffer plain;
    for (std::size_t i = 0; i < control_->content_ids().size() / kIdBytes; ++i) {
        WV_CHECK(view_.read_chunk(id_at(control_->content_ids(), i), plain));
        append(content, plain);
    }
    WV_CHECK(require_length(kControlPath, 0, control_->size_bytes(), content.size()));
    done_bytes_.fetch_add(content.size(), std::memory_order_relaxed);
    return content;
}

}  // namespace walvault::agent
