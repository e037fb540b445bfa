#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>

#include "storage/object_name.h"
#include "storage/object_store.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kTemporaryPrefix = ".put-";
constexpr std::uint64_t kPieceBytes = 4 << 20;

std::string parent_of(const std::string& name) {
    std::size_t slash = name.find_last_of('/');
    return slash == std::string::npos ? std::string() : name.substr(0, slash);
}

class DirectoryStore final : public ObjectStore {
public:
    DirectoryStore(FileSystem& files, std::string root) : files_(files), root_(std::move(root)) {
        while (root_.size() > 1 && root_.back() == '/')
            root_.pop_back();
    }

    Result<> put(const std::string& name, ByteSpan bytes) override {
        return put_written(name, [bytes](File& file) { return file.write(bytes); });
    }

    Result<> put_from(const std::string& name, std::uint64_t size_bytes,
                      const ObjectSource& source) override {
        // What there is none of would be taken for a directory that has gone.
        Result<> read;
        auto put = put_written(name, [&](File& file) -> Result<> {
            ByteBuffer held(std::min(kPieceBytes, size_bytes));
            for (std::uint64_t at = 0; at < size_bytes; at += kPieceBytes) {
                const MutableByteSpan piece(held.data(), std::min(kPieceBytes, size_bytes - at));
                read = fill_from(source, at, piece);
                if (!read) return fail(Errc::io, "what is to be put cannot be read");
                WV_CHECK(file.write(piece));
            }
            return {};
        });
        return read ? put : read;
    }

    Result<ByteBuffer> get(const std::string& name, std::uint64_t offset,
                           std::uint64_t length) override {
        return noted(read(name, offset, length), &ByteBuffer::size);
    }

    Result<std::size_t> get_into(const std::string& name, std::uint64_t offset,
                                 MutableByteSpan into) override {
        return noted(read_into(name, offset, into), [](std::size_t count) { return count; });
    }

    Reads reads() const override { return {read_bytes_, read_errors_}; }

    Result<ObjectInfo> info(const std::string& name) override {
        WV_CHECK(check_object_name(name));
        auto found = files_.info(path_of(name));
        if (!found) return fail(absent_or(std::move(found).error()));
        if (found->is_directory) return fail(Errc::not_found, path_of(name) + " is a directory");
        if (found->is_symlink)
            return fail(Errc::io, path_of(name) + " is a symbolic link, not an object",
                        "Mount the other disk at the repository's directory instead.");
        return ObjectInfo{name, found->size_bytes};
    }

    Result<std::vector<ObjectInfo>> list(const std::string& prefix) override {
        std::string directory = parent_of(prefix);
        WV_CHECK(check_object_prefix(prefix));
        WV_CHECK(require_root());
        std::vector<ObjectInfo> objects;
        std::vector<std::string> pending{directory};
        while (!pending.empty()) {
            std::string next = std::move(pending.back());
            pending.pop_back();
            WV_CHECK(list_one(next, prefix, objects, pending));
        }
        std::ranges::sort(objects, {}, &ObjectInfo::name);
        return objects;
    }

    Result<> remove(const std::string& name) override {
        WV_CHECK(info(name));
        if (auto removed = files_.remove(path_of(name)); !removed)
            return fail(absent_or(std::move(removed).error()));
        WV_CHECK(files_.sync_directory(path_of(parent_of(name))));
        forget_empty_directories(parent_of(name));
        return {};
    }

    bool is_near() const override { return true; }
    std::string url() const override { return "file://" + root_; }

private:
    using Write = std::function<Result<>(File&)>;

    Result<> put_written(const std::string& name, const Write& write) {
        WV_CHECK(check_object_name(name));
        WV_CHECK(refuse_existing(name));
        std::string directory = parent_of(name);
        WV_CHECK(make_durable_directory(directory));
        auto placed = place(name, directory, write);
        // Another thread may have removed the last object in it just then.
        if (placed || placed.error().code != Errc::not_found) return placed;
        forget_durable(directory);
        WV_CHECK(require_root());
        WV_CHECK(make_durable_directory(directory));
        return place(name, directory, write);
    }

    std::string path_of(const std::string& name) const {
        return name.empty() ? root_ : root_ + "/" + name;
    }

    Result<> place(const std::string& name, const std::string& directory, const Write& write) {
        std::string temporary =
            path_of(directory) + "/" + std::string(kTemporaryPrefix) + to_hex(random_id16());
        auto placed = [&]() -> Result<> {
            {
                WV_TRY(auto file, files_.create(temporary));
                WV_CHECK(write(*file));
                WV_CHECK(file->sync_data());
            }
            WV_CHECK(refuse_existing(name));
            return files_.rename(temporary, path_of(name));
        }();
        if (!placed) {
            // What matters is the first error; a leftover is never listed.
            static_cast<void>(files_.remove(temporary));
            return placed;
        }
        return files_.sync_directory(path_of(directory));
    }

    // Whoever made it is gone, or has removed it: it is made again.
    void forget_durable(std::string directory) {
        std::lock_guard lock(mutex_);
        for (; !directory.empty(); directory = parent_of(directory))
            durable_directories_.erase(directory);
    }

    Result<std::unique_ptr<File>> open(const std::string& name) {
        WV_CHECK(info(name));
        auto file = files_.open_read(path_of(name));
        if (!file) return fail(absent_or(std::move(file).error()));
        return file;
    }

    Result<ByteBuffer> read(const std::string& name, std::uint64_t offset, std::uint64_t length) {
        WV_TRY(auto file, open(name));
        WV_TRY(std::uint64_t size, file->size());
        if (offset >= size) return ByteBuffer{};
        ByteBuffer bytes(std::min(length, size - offset));
        WV_TRY(std::size_t count, file->read_at(offset, bytes));
        bytes.resize(count);
        return bytes;
    }

    Result<std::size_t> read_into(const std::string& name, std::uint64_t offset,
                                  MutableByteSpan into) {
        WV_TRY(auto file, open(name));
        WV_TRY(const std::uint64_t size, file->size());
        if (offset >= size) return std::size_t{0};
        return file->read_at(offset, into.first(std::min(into.size(), size - offset)));
    }

    // What was read, or why not, counted.
    template <class T, class Size>
    Result<T> noted(Result<T> read, Size size_bytes) {
        if (read)
            read_bytes_ += std::invoke(size_bytes, *read);
        else if (read.error().code != Errc::not_found)
            ++read_errors_;
        return read;
    }

    Result<> require_root() {
        auto root = files_.info(root_);
        if (root) return {};
        if (root.error().code != Errc::not_found) return fail(std::move(root).error());
        return fail(Errc::unavailable, "the directory " + root_ + " is not there",
                    "Is its disk mounted?");
    }

    // Absence is proven only where the root is there to be looked into.
    Error absent_or(Error error) {
        if (error.code != Errc::not_found) return error;
        if (auto root = require_root(); !root) return std::move(root).error();
        return error;
    }

    Result<> refuse_existing(const std::string& name) {
        auto found = files_.info(path_of(name));
        if (found) return fail(Errc::refused, path_of(name) + " exists; a name is written once");
        if (Error error = absent_or(std::move(found).error()); error.code != Errc::not_found)
            return fail(std::move(error));
        return {};
    }

    // A bucket has no directories. One that is not empty stays by itself, and one that came back by
    // a power cut is in nobody's way.
    void forget_empty_directories(std::string directory) {
        std::lock_guard lock(mutex_);
        for (; !directory.empty() && files_.remove(path_of(directory));
             directory = parent_of(directory))
            durable_directories_.erase(directory);
    }

    // Also where the directory is already there: who made it may have crashed before its sync.
    Result<> make_durable_directory(const std::string& name) {
        {
            std::lock_guard lock(mutex_);
            if (name.empty() || durable_directories_.contains(name)) return {};
        }
        std::string above = parent_of(name);
        WV_CHECK(make_durable_directory(above));
        WV_CHECK(files_.make_directories(path_of(name)));
        WV_CHECK(files_.sync_directory(path_of(above)));
        std::lock_guard lock(mutex_);
        if (swept_directories_.insert(name).second) sweep(name);
        durable_directories_.insert(name);
        return {};
    }

    // What a process that was killed in the middle of a put left behind; there is one writer, and
    // none of its threads puts anything here yet.
    void sweep(const std::string& directory) {
        auto entries = files_.list(path_of(directory));
        if (!entries) return;
        for (const FileInfo& entry : *entries)
            if (entry.name.starts_with(kTemporaryPrefix) && !entry.is_directory)
                static_cast<void>(files_.remove(path_of(directory) + "/" + entry.name));
    }

    Result<> list_one(const std::string& directory, const std::string& prefix,
                      std::vector<ObjectInfo>& objects, std::vector<std::string>& pending) {
        auto entries = files_.list(path_of(directory));
        if (!entries && entries.error().code == Errc::not_found) return {};
        if (!entries) return fail(std::move(entries).error());
        for (const FileInfo& entry : *entries) {
            if (!is_plain_name_component(entry.name) || entry.is_symlink) continue;
            // The file system's own, where a disk is mounted at the root; only the superuser may
            // look.
            if (directory.empty() && entry.name == "lost+found") continue;
            std::string name = directory.empty() ? entry.name : directory + "/" + entry.name;
            if (entry.is_directory) {
                std::string inside = name + "/";
                if (inside.starts_with(prefix) || prefix.starts_with(inside))
                    pending.push_back(name);
            } else if (name.starts_with(prefix)) {
                objects.push_back(ObjectInfo{std::move(name), entry.size_bytes});
            }
        }
        return {};
    }

    FileSystem& files_;
    std::string root_;
    std::mutex mutex_;
    std::set<std::string> durable_directories_;
    std::set<std::string> swept_directories_;
    std::atomic<std::uint64_t> read_bytes_{0};
    std::atomic<std::uint64_t> read_errors_{0};
};

}  // namespace

std::unique_ptr<ObjectStore> make_directory_store(FileSystem& files, std::string root) {
    return std::make_unique<DirectoryStore>(files, std::move(root));
}

}  // namespace walvault::storage
