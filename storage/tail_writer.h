// TailWriter: the open pack of a history: WAL frames appended and synced as they come.
//
// Durability: append() hands frames to the kernel, sync() makes everything appended so far survive
// power loss. After an error the object is broken for good: the tail is abandoned at what was
// synced, and WAL is received again into a new one.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/pack_writer.h"

namespace walvault::storage {

// What a tail will be, decided before it exists, so that frames for it can be sealed ahead of time.
struct TailPlan {
    std::string path;  // relative to the repository
    std::string cluster;
    FileCipher cipher;

    const FileHeader& header() const { return cipher.header(); }
};

class TailWriter {
public:
    // Creates the file with its header, fdatasyncs it and its directory.
    static Result<std::unique_ptr<TailWriter>> create(FileSystem& files, const std::string& root,
                                                      std::shared_ptr<const TailPlan> plan);

    const TailPlan& plan() const { return *plan_; }
    Result<> append(ByteSpan sealed_frame);
    // The same past the page cache, for many bytes, and for few that are synced at once: the cache
    // costs more than the disk. Zeros are left behind the last frame, up to the end of its block.
    Result<> append_past_cache(std::span<const ByteSpan> sealed_frames);
    // Sees to it that the next `bytes` fall on space that is written (with zeros) and synced before
    // or with them: a sync that changes no size takes the file system about half as long. For
    // frames that somebody waits for; writes 1 MiB when the space is used up. Does nothing where
    // less than 64 MiB are free. Errors: as append().
    Result<> write_ahead(std::uint64_t bytes);
    // Blocks for one fdatasync.
    Result<> sync();
    std::uint64_t end_offset() const { return end_offset_; }

    // Cuts off what was written ahead, appends the footer, syncs, renames "….tail" to "….pack",
    // syncs the directory. `footer` lists the frames as they are in the file.
    Result<pb::PackInfo> close_in_place(const pb::PackFooter& footer, std::uint32_t frame_number,
                                        pb::PackInfo info);

private:
    void note_appended(ByteSpan bytes);
    TailWriter(FileSystem& files, std::string root, std::shared_ptr<const TailPlan> plan)
        : files_(files), root_(std::move(root)), plan_(std::move(plan)) {}
    FileSystem& files_;
    std::string root_;
    std::shared_ptr<const TailPlan> plan_;
    std::unique_ptr<File> file_;
    std::uint64_t end_offset_ = 0;    // of the frames
    std::uint64_t ahead_offset_ = 0;  // end of the zeros behind them, where there are some
    ByteBuffer last_block_;           // the bytes before end_offset_ that do not fill a block
};

// "x.tail" -> "x.pack"
std::string pack_path_of_tail(const std::string& tail_path);

}  // namespace walvault::storage
