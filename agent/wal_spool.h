// WalSpool: WAL segments fetched ahead of PostgreSQL's asking, so that most calls of wal-get only
// rename a file instead of opening the repository.
//
// A directory in pg_wal of a restored cluster, on the file system where the segment has to go. What
// lies there is used only if it passes its checksum and is of the history that was restored. A
// spool that is damaged, gone or full costs time, nothing else.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "proto/lsn.h"

namespace walvault::agent {

// The most that lies in a spool.
inline constexpr std::uint64_t kSpoolBytesMax = 128ull << 20;

class WalSpool {
public:
    // For a segment that is wanted at `path`, from a process that runs in `data_directory`. Nothing
    // unless a restore of ours made that directory and `path` is the name that PostgreSQL's
    // recovery gives: whoever else calls wal-get wants one file and no directory beside it.
    static std::optional<WalSpool> open(FileSystem& files, const std::string& data_directory,
                                        const std::string& path);

    // Moves `segment` to the path, synced, and says true if it is here and whole. Anything else:
    // false.
    bool take(const std::string& segment);

    // Removes everything: when the segment that is wanted was not here, the others are of no use.
    void clear();
    // True while there is room for one more segment, here and on the file system.
    bool has_room(std::uint64_t segment_bytes) const;
    // Stores `segment`, which `fill` hands to its sink piece by piece. Not synced: what a crash
    // makes of it does not pass the check. Errors: those of `fill`, no_space, io; then nothing is
    // left.
    using Sink = std::function<Result<>(ByteSpan)>;
    Result<> put(const std::string& segment, const std::function<Result<>(const Sink&)>& fill);

    // Replay needs no segment that starts at or after this.
    Lsn end_lsn() const { return end_lsn_; }

private:
    WalSpool(FileSystem& files, std::string directory, std::string path)
        : files_(files), directory_(std::move(directory)), path_(std::move(path)) {}

    FileSystem& files_;
    std::string directory_;
    std::string path_;
    std::string history_;  // in hex, as the restore recorded it
    Lsn end_lsn_;
    std::uint64_t stored_bytes_ = 0;
};

}  // namespace walvault::agent
