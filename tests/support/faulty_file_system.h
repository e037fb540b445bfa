// FaultyFileSystem: the real one, until the Nth changing operation; from then on everything that
// changes fails.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "base/file_system.h"

namespace walvault {

// Counts writes, syncs, renames, creations, removals and directory syncs. When the count reaches
// `fail_at`, that operation fails with io; with `tear`, a failing write leaves its first half
// behind. Later ones fail too: the process is as good as dead, and what it left is what a crash
// leaves.
class FaultyFileSystem final : public FileSystem {
public:
    FaultyFileSystem(FileSystem& real, std::uint64_t fail_at, bool tear)
        : real_(real), fail_at_(fail_at), tear_(tear) {}

    std::uint64_t operation_count() const { return count_; }
    // Since the last call.
    std::set<std::string> take_synced_directories() {
        return std::exchange(synced_directories_, {});
    }
    bool fired() const { return fail_at_ != 0 && count_ >= fail_at_; }

    Result<std::unique_ptr<File>> create(const std::string& path, unsigned mode) override {
        WV_CHECK(step());
        WV_TRY(auto file, real_.create(path, mode));
        return std::make_unique<FaultyFile>(*this, std::move(file));
    }
    Result<std::unique_ptr<File>> open_append(const std::string& path) override {
        WV_TRY(auto file, real_.open_append(path));
        return std::make_unique<FaultyFile>(*this, std::move(file));
    }
    Result<std::unique_ptr<File>> open_read(const std::string& path) override {
        return real_.open_read(path);
    }
    Result<> rename(const std::string& from, const std::string& to) override {
        WV_CHECK(step());
        return real_.rename(from, to);
    }
    Result<> remove(const std::string& path) override {
        WV_CHECK(step());
        return real_.remove(path);
    }
    Result<> sync_directory(const std::string& path) override {
        WV_CHECK(step());
        synced_directories_.insert(path);
        return real_.sync_directory(path);
    }
    Result<> make_directories(const std::string& path, unsigned mode) override {
        return real_.make_directories(path, mode);
    }
    Result<> symlink(const std::string& target, const std::string& path) override {
        WV_CHECK(step());
        return real_.symlink(target, path);
    }
    Result<std::vector<FileInfo>> list(const std::string& path) override {
        return real_.list(path);
    }
    Result<FileInfo> info(const std::string& path) override { return real_.info(path); }
    Result<bool> exists(const std::string& path) override { return real_.exists(path); }
    Result<> give_to_owner_of(const std::string& path, const std::string& directory) override {
        return real_.give_to_owner_of(path, directory);
    }
    Result<std::uint64_t> available_bytes(const std::string& path) override {
        return real_.available_bytes(path);
    }
    Result<std::uint64_t> size_bytes(const std::string& path) override {
        return real_.size_bytes(path);
    }
    Result<std::unique_ptr<FileLock>> lock(const std::string& path) override {
        return real_.lock(path);
    }

private:
    class FaultyFile final : public File {
    public:
        FaultyFile(FaultyFileSystem& owner, std::unique_ptr<File> real)
            : owner_(owner), real_(std::move(real)) {}
        Result<> write(ByteSpan bytes) override {
            if (auto fine = owner_.step(); !fine) {
                if (owner_.tear_now()) (void)real_->write(bytes.first(bytes.size() / 2));
                return fine;
            }
            return real_->write(bytes);
        }
        Result<> write_at(std::uint64_t offset, ByteSpan bytes) override {
            if (auto fine = owner_.step(); !fine) {
                if (owner_.tear_now()) (void)real_->write_at(offset, bytes.first(bytes.size() / 2));
                return fine;
            }
            return real_->write_at(offset, bytes);
        }
        Result<std::size_t> read_at(std::uint64_t offset, MutableByteSpan into) override {
            return real_->read_at(offset, into);
        }
        Result<> sync_data() override {
            WV_CHECK(owner_.step());
            return real_->sync_data();
        }
        Result<std::uint64_t> size() override { return real_->size(); }
        Result<> truncate(std::uint64_t size) override {
            WV_CHECK(owner_.step());
            return real_->truncate(size);
        }

    private:
        FaultyFileSystem& owner_;
        std::unique_ptr<File> real_;
    };

    Result<> step() {
        ++count_;
        if (fail_at_ != 0 && count_ >= fail_at_)
            return fail(Errc::io, "injected fault at operation " + std::to_string(count_));
        return {};
    }
    bool tear_now() const { return tear_ && count_ == fail_at_; }

    FileSystem& real_;
    std::uint64_t fail_at_;
    bool tear_;
    std::uint64_t count_ = 0;
    std::set<std::string> synced_directories_;
};

}  // namespace walvault
