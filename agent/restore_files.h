// RestoreFiles: the files of a base backup, chunk by chunk, on several threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/restore_tree.h"
#include "storage/repository_view.h"

namespace walvault::agent {

// Fed with manifest entries from one thread; its workers read chunks and write files. Holes stay
// holes: a chunk of zeros is not written.
class RestoreFiles {
public:
    RestoreFiles(storage::RepositoryView& view, const RestoreTree& tree, unsigned jobs);
    ~RestoreFiles();  // stops the workers

    // Waits while much is queued. global/pg_control is kept back, tablespace_map and signal files
    // are left out: the job writes them. Errors: corrupt (sizes that do not fit), or what a worker
    // met.
    Result<> add(const pb::ManifestFile& file);
    // Waits until all is written, calling `on_wait` now and then. Errors: what a worker met.
    Result<> finish(const std::function<void()>& on_wait);
    std::uint64_t done_bytes() const { return done_bytes_.load(std::memory_order_relaxed); }
    // The content of pg_control, if it was among the files.
    Result<ByteBuffer> control_file();
    bool has_backup_label() const { return has_backup_label_; }

private:
    struct OpenFile {
        std::string path;
        unsigned mode = 0;
        std::uint64_t size_bytes = 0;
        std::mutex mutex;  // guards `file` while it is made
        RestoredFile file;
    };
    // Consecutive chunks of one file.
    struct Piece {
        std::shared_ptr<OpenFile> file;
        std::uint64_t offset = 0;
        std::uint32_t chunk_bytes = 0;
        std::string content_ids;
    };
    Result<> push(Piece piece);
    void work();
    Result<> restore_piece(Piece& piece, ByteBuffer& plain);
    Result<> open_once(OpenFile& file) const;

    storage::RepositoryView& view_;
    const RestoreTree& tree_;
    std::optional<pb::ManifestFile> control_;
    bool has_backup_label_ = false;
    std::atomic<std::uint64_t> done_bytes_{0};

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Piece> queue_;
    std::size_t busy_ = 0;
    bool closed_ = false;
    std::optional<Error> error_;
    std::vector<std::thread> workers_;
};

// True if every byte is zero.
bool is_all_zeros(ByteSpan bytes);

}  // namespace walvault::agent
