// PackWriter: writes a pack: header, sealed frames in order, footer, trailer; visible only when
// finished.
#pragma once

#include <memory>
#include <string>

#include "base/file_system.h"
#include "proto/repository.pb.h"
#include "storage/sealer.h"

namespace walvault::storage {

inline constexpr int kFooterLevel = 3;  // zstd; footers are small and read often
// A pack ends when its footer gets about this large: it is one frame of at most
// kFramePlainBytesMax.
inline constexpr std::size_t kFooterBytesGoal = 4 << 20;
inline constexpr std::uint32_t kPackFramesMax = 1 << 16;  // the same in chunks of 80 bytes each

// The footer frame and the trailer that follow the last content frame of `cipher`'s file.
struct SealedFooter {
    ByteBuffer bytes;
    Id32 hash{};  // keyed, of the footer frame: what the ledger names
};
// Errors: invalid_argument for a footer that is more than a frame can hold.
Result<SealedFooter> seal_footer(const FileCipher& cipher, const pb::PackFooter& footer,
                                 std::uint64_t footer_offset, std::uint32_t frame_number);

// The 16 bytes that authenticate a sealed frame; kept in the footer so that the footer vouches for
// all.
std::string tag_of(ByteSpan sealed_frame);

// One writer at a time; calls block for disk time. After an error it refuses further use.
class PackWriter {
public:
    // Writes to `root`/`path`.tmp. The header goes first. Errors: refused, io, no_space.
    static Result<std::unique_ptr<PackWriter>> create(FileSystem& files, const std::string& root,
                                                      const std::string& path, FileCipher cipher);
    ~PackWriter();

    const FileCipher& cipher() const { return cipher_; }
    const std::string& path() const { return path_; }
    // Number for the next frame, where frames are sealed one after another.
    std::uint32_t next_frame_number() const {
        return static_cast<std::uint32_t>(footer_.frames_size() + footer_.key_blocks_size());
    }
    std::uint64_t end_offset() const { return end_offset_; }

    // `entry` has what is known of the frame, its number too; offset, stored length and tag are
    // filled in here. Numbers may come in any order and are not repeated.
    Result<> append(ByteSpan sealed_frame, pb::FrameEntry entry);
    // Of a journal: a key block, between content frames or behind them. As append().
    Result<> append_keys(ByteSpan sealed_frame, pb::KeyBlock block);
    void set_tables(const std::vector<pb::JournalTable>& tables) {
        footer_.mutable_tables()->Assign(tables.begin(), tables.end());
    }
    void set_covered_until_us(std::int64_t until_us) { footer_.set_covered_until_us(until_us); }
    void add_marks(const std::vector<pb::MarkEntry>& marks);

    // Footer, trailer, fdatasync, rename to `path`, directory sync: durable and whole when it
    // returns. `info` has its own fields filled in; path, file id, frame count, lengths and hash
    // are set here. Errors: those of seal_footer(), io, no_space.
    Result<pb::PackInfo> finish(pb::PackInfo info);
    const pb::PackFooter& footer() const { return footer_; }

private:
    Result<> write(ByteSpan bytes);
    PackWriter(FileSystem& files, std::string root, std::string path, FileCipher cipher)
        : files_(files),
          root_(std::move(root)),
          path_(std::move(path)),
          cipher_(std::move(cipher)) {}

    FileSystem& files_;
    std::string root_;
    std::string path_;
    FileCipher cipher_;
    std::unique_ptr<File> file_;
    pb::PackFooter footer_;
    std::uint64_t end_offset_ = 0;
    std::uint64_t unsynced_bytes_ = 0;
    std::uint64_t plain_bytes_ = 0;
    bool finished_ = false;
};

std::string parent_directory(const std::string& path);

}  // namespace walvault::storage
