// FileSystem: the only door to the disk, so that a test can put one behind it that crashes, tears
// and fills up.
//
// Durability: write() hands bytes to the kernel; only sync_data() makes them survive power loss,
// and only sync_directory() makes a new name or a rename survive. An error from write() or
// sync_data() breaks the File for good: every later write() and sync_data() returns io, because the
// kernel may have dropped the dirty pages and a second fsync would succeed without them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace walvault {

class File {
public:
    virtual ~File() = default;

    // Appends all of `bytes` at end(). Errors: no_space, io. Part of them may be in the file after
    // an error.
    virtual Result<> write(ByteSpan bytes) = 0;
    // Writes all of `bytes` at `offset` without moving end(). For restored files and tails; else in
    // the repository only to write again what is there. Whole blocks of 4 KiB at an offset and an
    // address that are multiples of that go past the page cache where the file system can do it:
    // then no other thread may read from this File meanwhile.
    virtual Result<> write_at(std::uint64_t offset, ByteSpan bytes) = 0;
    // Reads until `into` is full or the file ends; returns the count. Errors: io.
    virtual Result<std::size_t> read_at(std::uint64_t offset, MutableByteSpan into) = 0;
    // fdatasync. Blocks 0.1-20 ms and more. Errors: io, no_space (both final).
    virtual Result<> sync_data() = 0;
    virtual Result<std::uint64_t> size() = 0;
    virtual Result<> truncate(std::uint64_t size) = 0;
};

struct FileInfo {
    std::string name;  // the last component
    bool is_directory = false;
    bool is_symlink = false;
    std::uint64_t size_bytes = 0;
    unsigned mode = 0;  // permission bits
    unsigned owner = 0;
};

// Held until destroyed.
class FileLock {
public:
    virtual ~FileLock() = default;
};

class FileSystem {
public:
    virtual ~FileSystem() = default;

    // Creates `path` with O_EXCL. Errors: refused if it exists; io, no_space.
    virtual Result<std::unique_ptr<File>> create(const std::string& path, unsigned mode = 0600) = 0;
    // Opens for appending at the end and reading. Errors: not_found (proven absent), io.
    virtual Result<std::unique_ptr<File>> open_append(const std::string& path) = 0;
    // Errors: not_found (proven absent), io.
    virtual Result<std::unique_ptr<File>> open_read(const std::string& path) = 0;

    virtual Result<> rename(const std::string& from, const std::string& to) = 0;
    virtual Result<> remove(const std::string& path) = 0;  // not_found when absent
    virtual Result<> sync_directory(const std::string& path) = 0;
    virtual Result<> make_directories(const std::string& path, unsigned mode = 0700) = 0;
    virtual Result<> symlink(const std::string& target, const std::string& path) = 0;
    // Sorted by name; without "." and "..". Errors: not_found, io.
    virtual Result<std::vector<FileInfo>> list(const std::string& path) = 0;
    // Does not follow a symbolic link. Errors: not_found, io.
    virtual Result<FileInfo> info(const std::string& path) = 0;
    // False: proven absent. Does not follow a symbolic link. Errors: io.
    virtual Result<bool> exists(const std::string& path) {
        auto found = info(path);
        if (!found && found.error().code == Errc::not_found) return false;
        if (!found) return fail(std::move(found).error());
        return true;
    }
    // As root, gives `path` to the owner of `directory`, so that who owns the directory can go on
    // with it; otherwise does nothing. Errors: not_found, io.
    virtual Result<> give_to_owner_of(const std::string& path, const std::string& directory) = 0;
    virtual Result<std::uint64_t> available_bytes(const std::string& path) = 0;
    // Of the whole file system that `path` is on.
    virtual Result<std::uint64_t> size_bytes(const std::string& path) = 0;
    // An exclusive flock on `path`, created if missing. Errors: busy if another process has it.
    virtual Result<std::unique_ptr<FileLock>> lock(const std::string& path) = 0;
};

FileSystem& posix_file_system();

// The whole of a small file. Errors: as open_read; corrupt if longer than `bytes_max`.
Result<ByteBuffer> read_file(FileSystem& files, const std::string& path, std::uint64_t bytes_max);
// Writes `path`.tmp, syncs it, renames it over `path`, syncs the directory: old or new, never half.
Result<> write_file_atomically(FileSystem& files, const std::string& path, ByteSpan bytes,
                               unsigned mode = 0600);

}  // namespace walvault
