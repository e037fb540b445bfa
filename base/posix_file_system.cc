#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_system.h"

namespace walvault {
namespace {

Error system_error(std::string_view doing, const std::string& path, int code) {
    Errc errc = Errc::io;
    if (code == ENOENT || code == ENOTDIR) errc = Errc::not_found;
    if (code == ENOSPC || code == EDQUOT) errc = Errc::no_space;
    if (code == EEXIST) errc = Errc::refused;
    return Error{errc, std::string(doing) + " " + path + ": " + std::strerror(code)};
}

// O_DIRECT asks for whole blocks at aligned addresses; 4096 is enough for nearly every disk.
constexpr std::size_t kBlockBytes = 4096;

bool is_whole_blocks(std::uint64_t offset, ByteSpan bytes) {
    return !bytes.empty() && offset % kBlockBytes == 0 && bytes.size() % kBlockBytes == 0 &&
           reinterpret_cast<std::uintptr_t>(bytes.data()) % kBlockBytes == 0;
}

class PosixFile final : public File {
public:
    PosixFile(int fd, std::string path, std::uint64_t end)
        : fd_(fd), path_(std::move(path)), end_(end) {}
    ~PosixFile() override { ::close(fd_); }

    Result<> write(ByteSpan bytes) override {
        WV_CHECK(require_whole());
        WV_CHECK(write_all(end_, bytes));
        end_ += bytes.size();
        return {};
    }

    Result<> write_at(std::uint64_t offset, ByteSpan bytes) override {
        WV_CHECK(require_whole());
        WV_CHECK(write_all(offset, bytes));
        end_ = std::max(end_, offset + bytes.size());
        return {};
    }

    Result<std::size_t> read_at(std::uint64_t offset, MutableByteSpan into) override {
        std::size_t done = 0;
        if (!use_page_cache()) return fail(system_error("fcntl", path_, errno));
        while (done < into.size()) {
            ssize_t count = ::pread(fd_, into.data() + done, into.size() - done,
                                    static_cast<off_t>(offset + done));
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return fail(system_error("read", path_, errno));
            if (count == 0) break;
            done += static_cast<std::size_t>(count);
        }
        return done;
    }

    Result<> sync_data() override {
        WV_CHECK(require_whole());
        if (::fdatasync(fd_) != 0) return break_with("fdatasync", errno);
        return {};
    }

    Result<std::uint64_t> size() override {
        struct stat status {};
        if (::fstat(fd_, &status) != 0) return fail(system_error("fstat", path_, errno));
        return static_cast<std::uint64_t>(status.st_size);
    }

    Result<> truncate(std::uint64_t size) override {
        WV_CHECK(require_whole());
        if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return break_with("truncate", errno);
        end_ = size;
        return {};
    }

private:
    Result<> require_whole() const {
        if (!broken_) return {};
        return fail(Errc::io, path_ + " is not used any more after an earlier write or sync error");
    }
    Result<> break_with(std::string_view doing, int code) {
        broken_ = true;
        return fail(system_error(doing, path_, code));
    }
    Result<> write_all(std::uint64_t offset, ByteSpan bytes) {
        const bool direct = is_whole_blocks(offset, bytes) && pass_page_cache();
        if (!direct && !use_page_cache()) return break_with("fcntl", errno);
        while (!bytes.empty()) {
            ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (count < 0 && errno == EINTR) continue;
            // Blocks larger than these, or a file system that says so late.
            if (count < 0 && errno == EINVAL && is_direct_) {
                never_direct_ = true;
                if (use_page_cache()) continue;
            }
            if (count < 0) return break_with("write", errno);
            offset += static_cast<std::uint64_t>(count);
            bytes = bytes.subspan(static_cast<std::size_t>(count));
        }
        return {};
    }

    // False where the file system cannot do that.
    bool pass_page_cache() {
        if (!is_direct_ && !never_direct_) never_direct_ = !set_flags(O_DIRECT, 0);
        is_direct_ = !never_direct_;
        return is_direct_;
    }
    bool use_page_cache() {
        if (is_direct_ && !set_flags(0, O_DIRECT)) return false;
        is_direct_ = false;
        return true;
    }
    bool set_flags(int on, int off) {
        const int flags = ::fcntl(fd_, F_GETFL);
        return flags >= 0 && ::fcntl(fd_, F_SETFL, (flags | on) & ~off) == 0;
    }

    int fd_;
    std::string path_;
    std::uint64_t end_;
    bool broken_ = false;
    bool is_direct_ = false;  // O_DIRECT is set
    bool never_direct_ = false;
};

class PosixFileLock final : public FileLock {
public:
    explicit PosixFileLock(int fd) : fd_(fd) {}
    ~PosixFileLock() override { ::close(fd_); }

private:
    int fd_;
};

FileInfo to_info(std::string name, const struct stat& status) {
    return FileInfo{.name = std::move(name),
                    .is_directory = S_ISDIR(status.st_mode),
                    .is_symlink = S_ISLNK(status.st_mode),
                    .size_bytes = static_cast<std::uint64_t>(status.st_size),
                    .mode = static_cast<unsigned>(status.st_mode & 07777),
                    .owner = status.st_uid};
}

Result<std::unique_ptr<File>> open_file(const std::string& path, int flags, unsigned mode) {
    int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, static_cast<mode_t>(mode));
    if (fd < 0) return fail(system_error("open", path, errno));
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        int code = errno;
        ::close(fd);
        return fail(system_error("fstat", path, code));
    }
    return std::make_unique<PosixFile>(fd, path, static_cast<std::uint64_t>(status.st_size));
}

class PosixFileSystem final : public FileSystem {
public:
    Result<std::unique_ptr<File>> create(const std::string& path, unsigned mode) override {
        return open_file(path, O_RDWR | O_CREAT | O_EXCL, mode);
    }
    Result<std::unique_ptr<File>> open_append(const std::string& path) override {
        return open_file(path, O_RDWR, 0);
    }
    Result<std::unique_ptr<File>> open_read(const std::string& path) override {
        return open_file(path, O_RDONLY, 0);
    }
    Result<> rename(const std::string& from, const std::string& to) override {
        if (::rename(from.c_str(), to.c_str()) != 0)
            return fail(system_error("rename", from, errno));
        return {};
    }
    Result<> remove(const std::string& path) override {
        if (::remove(path.c_str()) != 0) return fail(system_error("remove", path, errno));
        return {};
    }
    Result<> sync_directory(const std::string& path) override {
        int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) return fail(system_error("open directory", path, errno));
        int code = ::fsync(fd) == 0 ? 0 : errno;
        ::close(fd);
        if (code != 0) return fail(system_error("fsync directory", path, code));
        return {};
    }
    Result<> make_directories(const std::string& path, unsigned mode) override {
        for (std::size_t slash = 1; slash != std::string::npos;) {
            slash = path.find('/', slash);
            std::string part = path.substr(0, slash);
            if (!part.empty() && ::mkdir(part.c_str(), static_cast<mode_t>(mode)) != 0 &&
                errno != EEXIST)
                return fail(system_error("create directory", part, errno));
            if (slash != std::string::npos) ++slash;
        }
        return {};
    }
    Result<> symlink(const std::string& target, const std::string& path) override {
        if (::symlink(target.c_str(), path.c_str()) != 0)
            return fail(system_error("create symbolic link", path, errno));
        return {};
    }
    Result<std::vector<FileInfo>> list(const std::string& path) override {
        DIR* directory = ::opendir(path.c_str());
        if (directory == nullptr) return fail(system_error("list", path, errno));
        std::vector<FileInfo> entries;
        errno = 0;
        while (dirent* entry = ::readdir(directory)) {
            std::string name = entry->d_name;
            if (name == "." || name == "..") continue;
            struct stat status {};
            if (::fstatat(::dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
                entries.push_back(to_info(std::move(name), status));
            else if (errno != ENOENT)
                break;
            errno = 0;
        }
        int code = errno;
        ::closedir(directory);
        if (code != 0) return fail(system_error("list", path, code));
        std::sort(entries.begin(), entries.end(),
                  [](const FileInfo& a, const FileInfo& b) { return a.name < b.name; });
        return entries;
    }
    Result<FileInfo> info(const std::string& path) override {
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0) return fail(system_error("stat", path, errno));
        return to_info(path.substr(path.find_last_of('/') + 1), status);
    }
    // Asked for at each sync of a tail: absence is not made an error with a text first.
    Result<bool> exists(const std::string& path) override {
        struct stat status {};
        if (::lstat(path.c_str(), &status) == 0) return true;
        if (errno == ENOENT || errno == ENOTDIR) return false;
        return fail(system_error("look for", path, errno));
    }
    Result<> give_to_owner_of(const std::string& path, const std::string& directory) override {
        if (::geteuid() != 0) return {};
        struct stat status {};
        if (::stat(directory.c_str(), &status) != 0)
            return fail(system_error("stat", directory, errno));
        if (::lchown(path.c_str(), status.st_uid, status.st_gid) != 0)
            return fail(system_error("change the owner of", path, errno));
        return {};
    }
    Result<std::uint64_t> available_bytes(const std::string& path) override {
        struct statvfs status {};
        if (::statvfs(path.c_str(), &status) != 0)
            return fail(system_error("statvfs", path, errno));
        return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
    }
    Result<std::uint64_t> size_bytes(const std::string& path) override {
        struct statvfs status {};
        if (::statvfs(path.c_str(), &status) != 0)
            return fail(system_error("statvfs", path, errno));
        return static_cast<std::uint64_t>(status.f_blocks) * status.f_frsize;
    }
    Result<std::unique_ptr<FileLock>> lock(const std::string& path) override {
        int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) return fail(system_error("open lock", path, errno));
        if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int code = errno;
            ::close(fd);
            if (code == EWOULDBLOCK)
                return fail(Errc::busy, path + " is locked by another process");
            return fail(system_error("lock", path, code));
        }
        return std::make_unique<PosixFileLock>(fd);
    }
};

std::string directory_of(const std::string& path) {
    std::size_t slash = path.find_last_of('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

FileSystem& posix_file_system() {
    static PosixFileSystem files;
    return files;
}

Result<ByteBuffer> read_file(FileSystem& files, const std::string& path, std::uint64_t bytes_max) {
    WV_TRY(auto file, files.open_read(path));
    WV_TRY(std::uint64_t size, file->size());
    if (size > bytes_max)
        return fail(Errc::corrupt, path + " has " + std::to_string(size) +
                                       " bytes, more than the " + std::to_string(bytes_max) +
                                       " it can have");
    ByteBuffer bytes(size);
    WV_TRY(std::size_t count, file->read_at(0, bytes));
    bytes.resize(count);
    return bytes;
}

Result<> write_file_atomically(FileSystem& files, const std::string& path, ByteSpan bytes,
                               unsigned mode) {
    std::string temporary = path + ".tmp";
    if (auto removed = files.remove(temporary); !removed && removed.error().code != Errc::not_found)
        return fail(std::move(removed).error());
    {
        WV_TRY(auto file, files.create(temporary, mode));
        WV_CHECK(file->write(bytes));
        WV_CHECK(file->sync_data());
    }
    WV_CHECK(files.rename(temporary, path));
    return files.sync_directory(directory_of(path));
}

}  // namespace walvault
