// StagingFile: bytes that wait on the disk for as long as this process needs them: compressed, and
// sealed under a key that is kept nowhere else.
//
// It has no name any more when create() returns, so that no crash leaves it behind. Nothing in it
// is durable: whoever fills it can get the same bytes again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "storage/sealer.h"

namespace walvault::storage {

// One thread at a time; every call blocks for disk time.
class StagingFile {
public:
    // In `directory`, on its file system. Errors: io, no_space.
    static Result<std::unique_ptr<StagingFile>> create(FileSystem& files,
                                                       const std::string& directory);

    // At most kFramePlainBytesMax. Errors: io, no_space; the file is of no use then.
    Result<> append(ByteSpan block);
    std::size_t block_count() const { return blocks_.size(); }
    std::uint64_t stored_bytes() const { return stored_bytes_; }
    // The block of that number, from 0. Errors: corrupt, io.
    Result<> read(std::size_t number, ByteBuffer& block) const;

private:
    struct Block {
        std::uint64_t offset = 0;
        std::uint32_t stored_bytes = 0;
        std::uint32_t plain_bytes = 0;
    };
    StagingFile(std::unique_ptr<File> file, FileCipher cipher)
        : file_(std::move(file)), cipher_(std::move(cipher)) {}
    static FramePlace place_of(std::size_t number);

    std::unique_ptr<File> file_;
    FileCipher cipher_;
    std::vector<Block> blocks_;
    std::uint64_t stored_bytes_ = 0;
};

}  // namespace walvault::storage
