// Talks to the kernel directly: base/file_system.h has neither owners nor descriptors of
// directories.
#include "agent/restore_tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

namespace walvault::agent {
namespace {

tl::unexpected<Error> system_failure(const std::string& doing, const std::string& path, int code) {
    Errc errc = Errc::io;
    if (code == ENOSPC || code == EDQUOT) errc = Errc::no_space;
    if (code == EEXIST || code == ELOOP) errc = Errc::refused;
    return fail(
        errc, doing + " " + path + ": " + std::strerror(code),
        errc == Errc::no_space ? "free space there and repeat the command; it starts over" : "");
}

class Descriptor {
public:
    explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
    ~Descriptor() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return descriptor_; }
    int release() { return std::exchange(descriptor_, -1); }
    void reset(int descriptor) {
        if (descriptor_ >= 0) ::close(descriptor_);
        descriptor_ = descriptor;
    }

private:
    int descriptor_;
};

// O_DIRECT asks for whole blocks at aligned addresses; 4096 is enough for every disk that
// PostgreSQL's pages of 8192 bytes suit.
constexpr std::size_t kBlockBytes = 4096;
constexpr std::uint64_t kDirectBytesMin = 1_MiB;

// Of whole blocks. One per thread, as large as the largest write it was used for.
class AlignedBuffer {
public:
    ByteSpan copy_of(ByteSpan bytes) {
        if (bytes.size() > size_bytes_) {
            bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, bytes.size())));
            WV_ASSERT(bytes_ != nullptr);
            size_bytes_ = bytes.size();
        }
        std::memcpy(bytes_.get(), bytes.data(), bytes.size());
        return {bytes_.get(), bytes.size()};
    }

private:
    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };
    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t size_bytes_ = 0;
};

// False where the file system cannot do that.
bool pass_page_cache(int descriptor) {
    const int flags = ::fcntl(descriptor, F_GETFL);
    return flags >= 0 && ::fcntl(descriptor, F_SETFL, flags | O_DIRECT) == 0;
}
// False where it was used already.
bool use_page_cache(int descriptor) {
    const int flags = ::fcntl(descriptor, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) != 0 &&
           ::fcntl(descriptor, F_SETFL, flags & ~O_DIRECT) == 0;
}

constexpr int kDirectoryFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
// PostgreSQL accepts data directories and files of its user, and of its group for reading.
unsigned directory_mode(unsigned mode) { return (mode & 0750) | 0700; }
unsigned file_mode(unsigned mode) { return (mode & 0640) | 0600; }

}  // namespace

bool is_safe_relative_path(std::string_view path) {
    if (path.empty() || path.size() > 1000 || path.front() == '/' ||
        path.find('\0') != std::string_view::npos)
        return false;
    while (true) {
        const std::size_t slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
        if (slash == std::string_view::npos) return true;
        path.remove_prefix(slash + 1);
    }
}

RestoredFile::~RestoredFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}
RestoredFile::RestoredFile(RestoredFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      is_direct_(other.is_direct_) {}
RestoredFile& RestoredFile::operator=(RestoredFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(path_, other.path_);
    std::swap(is_direct_, other.is_direct_);
    return *this;
}

Result<> RestoredFile::write_at(std::uint64_t offset, ByteSpan bytes) {
    thread_local AlignedBuffer buffer;
    const bool is_whole_blocks = offset % kBlockBytes == 0 && bytes.size() % kBlockBytes == 0;
    if (is_direct_ && is_whole_blocks) bytes = buffer.copy_of(bytes);
    while (!bytes.empty()) {
        const ssize_t count =
            ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        // Parts of a block, or blocks larger than these: this file goes through the cache from now
        // on.
        if (count < 0 && errno == EINVAL && use_page_cache(descriptor_)) continue;
        if (count < 0) return system_failure("write", path_, errno);
        offset += static_cast<std::uint64_t>(count);
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return {};
}

Result<> RestoredFile::set_size(std::uint64_t bytes) {
    if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0)
        return system_failure("extend", path_, errno);
    is_direct_ =
        bytes >= kDirectBytesMin && bytes % kBlockBytes == 0 && pass_page_cache(descriptor_);
    return {};
}

Result<> RestoredFile::sync() {
    if (::fsync(descriptor_) != 0) return system_failure("fsync", path_, errno);
    return {};
}

Result<RestoreTree> RestoreTree::open(const std::map<std::string, std::string>& roots,
                                      std::optional<FileOwner> owner) {
    RestoreTree tree;
    tree.owner_ = std::move(owner);
    for (auto root = roots.rbegin(); root != roots.rend(); ++root) {
        const int descriptor = ::open(root->second.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (descriptor < 0) return system_failure("open", root->second, errno);
        tree.roots_.push_back(
            Root{root->first.empty() ? "" : root->first + "/", root->second, descriptor});
    }
    WV_ASSERT(!tree.roots_.empty() && tree.roots_.back().prefix.empty());
    return tree;
}

RestoreTree::RestoreTree(RestoreTree&& other) noexcept
    : roots_(std::exchange(other.roots_, {})), owner_(std::move(other.owner_)) {}

RestoreTree::~RestoreTree() {
    for (const Root& root : roots_)
        ::close(root.descriptor);
}

Result<> RestoreTree::give(int descriptor, const std::string& path) const {
    if (!owner_ || ::fchown(descriptor, owner_->user, owner_->group) == 0) return {};
    return system_failure("change the owner of", path, errno);
}

Result<RestoreTree::Parent> RestoreTree::open_parent(const std::string& path) const {
    if (!is_safe_relative_path(path))
        return fail(Errc::corrupt, "the manifest names a file outside the data directory (" +
                                       std::to_string(path.size()) + " bytes of path)");
    const Root* root = nullptr;
    for (const Root& each : roots_)
        if (root == nullptr && path.compare(0, each.prefix.size(), each.prefix) == 0) root = &each;
    std::string_view rest = std::string_view(path).substr(root->prefix.size());
    const std::string text = root->directory + "/" + std::string(rest);
    Descriptor here(::fcntl(root->descriptor, F_DUPFD_CLOEXEC, 0));
    if (here.get() < 0) return system_failure("open", root->directory, errno);
    for (std::size_t slash = rest.find('/'); slash != std::string_view::npos;
         slash = rest.find('/')) {
        const std::string part(rest.substr(0, slash));
        rest.remove_prefix(slash + 1);
        int next = ::openat(here.get(), part.c_str(), kDirectoryFlags);
        if (next < 0 && errno == ENOENT) {
            if (::mkdirat(here.get(), part.c_str(), 0700) != 0 && errno != EEXIST)
                return system_failure("make a directory for", text, errno);
            next = ::openat(here.get(), part.c_str(), kDirectoryFlags);
            if (next >= 0) WV_CHECK(give(next, text));
        }
        if (next < 0) return system_failure("open a directory of", text, errno);
        here.reset(next);
    }
    return Parent{here.release(), std::string(rest), text};
}

Result<RestoredFile> RestoreTree::create_file(const std::string& path, unsigned mode) const {
    WV_TRY(Parent parent, open_parent(path));
    Descriptor directory(parent.descriptor);
    const int descriptor =
        ::openat(directory.get(), parent.name.c_str(),
                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, file_mode(mode));
    if (descriptor < 0) return system_failure("create", parent.text, errno);
    RestoredFile file(descriptor, parent.text);
    WV_CHECK(give(descriptor, parent.text));
    return file;
}

Result<> RestoreTree::make_directory(const std::string& path, unsigned mode) const {
    WV_TRY(Parent parent, open_parent(path));
    Descriptor directory(parent.descriptor);
    // A file that came before its directory's entry has made it already.
    if (::mkdirat(directory.get(), parent.name.c_str(), directory_mode(mode)) != 0 &&
        errno != EEXIST)
        return system_failure("make directory", parent.text, errno);
    Descriptor made(::openat(directory.get(), parent.name.c_str(), kDirectoryFlags));
    if (made.get() < 0) return system_failure("open", parent.text, errno);
    if (::fchmod(made.get(), directory_mode(mode)) != 0)
        return system_failure("chmod", parent.text, errno);
    return give(made.get(), parent.text);
}

Result<> RestoreTree::make_symlink(const std::string& path, const std::string& target) const {
    WV_TRY(Parent parent, open_parent(path));
    Descriptor directory(parent.descriptor);
    if (::symlinkat(target.c_str(), directory.get(), parent.name.c_str()) != 0)
        return system_failure("make the symbolic link", parent.text, errno);
    if (owner_ && ::fchownat(directory.get(), parent.name.c_str(), owner_->user, owner_->group,
                             AT_SYMLINK_NOFOLLOW) != 0)
        return system_failure("change the owner of", parent.text, errno);
    return {};
}

Result<> RestoreTree::write_file(const std::string& path, ByteSpan bytes) const {
    WV_TRY(RestoredFile file, create_file(path, 0600));
    WV_CHECK(file.write_at(0, bytes));
    return file.sync();
}

Result<> RestoreTree::rename(const std::string& from, const std::string& to) const {
    WV_TRY(Parent source, open_parent(from));
    Descriptor source_directory(source.descriptor);
    WV_TRY(Parent goal, open_parent(to));
    Descriptor goal_directory(goal.descriptor);
    if (::renameat(source_directory.get(), source.name.c_str(), goal_directory.get(),
                   goal.name.c_str()) != 0)
        return system_failure("rename to", goal.text, errno);
    if (::fsync(goal_directory.get()) != 0)
        return system_failure("fsync the directory of", goal.text, errno);
    return {};
}

Result<> RestoreTree::remove(const std::string& path) const {
    WV_TRY(Parent parent, open_parent(path));
    Descriptor directory(parent.descriptor);
    if (::unlinkat(directory.get(), parent.name.c_str(), 0) != 0 && errno != ENOENT)
        return system_failure("remove", parent.text, errno);
    if (::fsync(directory.get()) != 0)
        return system_failure("fsync the directory of", parent.text, errno);
    return {};
}

// One syncfs for a hundred thousand files: an fsync for each would cost more than writing them.
// Since Linux 5.8 it reports write-back errors of the whole file system.
Result<> RestoreTree::sync_file_systems() const {
    for (const Root& root : roots_)
        if (::syncfs(root.descriptor) != 0)
            return system_failure("sync the file system of", root.directory, errno);
    return {};
}

}  // namespace walvault::agent
