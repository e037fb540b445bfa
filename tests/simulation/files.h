// SimulatedFiles: a file system in memory that forgets at a power cut what was not synced, as ext4
// and XFS may.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "tests/simulation/random.h"

namespace walvault::simulation {

// Thrown out of the operation at which the process ends; what follows it never happens.
struct Crash {};

// A write goes to the page cache. sync_data() takes the file's writes to the disk, and neither its
// name nor anything else there; sync_directory() takes the names in one directory, in the order in
// which they changed. What was not synced is at a power cut kept, lost, cut off, or there as zeros,
// each write for itself; of the names of a directory the first few changes are kept.
//
// After a sync that failed the cache is clean and the disk is old: the next sync succeeds, and does
// nothing for what was written before.
class SimulatedFiles final : public FileSystem {
public:
    SimulatedFiles();

    // Faults; a count of operations from now on, 0 for never.
    std::uint64_t crash_in = 0;           // operations that change something
    std::uint64_t fail_sync_in = 0;       // syncs of files
    std::uint64_t fail_directory_in = 0;  // syncs of directories
    std::uint64_t fail_write_in = 0;      // writes: half of it is written
    std::uint64_t capacity_bytes = ~std::uint64_t{0};
    // From the crash on nothing is changed any more, until it is cleared.
    bool is_frozen = false;
    // flock is of one machine: agents of two do not see each other's.
    bool locks_are_seen = true;

    std::uint64_t used_bytes() const;
    std::uint64_t room_bytes() const;
    std::uint64_t operation_count() const { return operations_; }

    enum class Cut { everything_lost, everything_kept, drawn };
    // What a power cut at this moment would leave.
    std::unique_ptr<SimulatedFiles> after_power_cut(Cut cut, Random& random) const;
    // This file system after a power cut. No file or lock of it is used any more.
    void cut_power(Random& random);
    // Every path with its size, for the log and for telling what an agent touched.
    std::map<std::string, std::uint64_t> sizes() const;

    Result<std::unique_ptr<File>> create(const std::string& path, unsigned mode) override;
    Result<std::unique_ptr<File>> open_append(const std::string& path) override;
    Result<std::unique_ptr<File>> open_read(const std::string& path) override;
    Result<> rename(const std::string& from, const std::string& to) override;
    Result<> remove(const std::string& path) override;
    Result<> sync_directory(const std::string& path) override;
    Result<> make_directories(const std::string& path, unsigned mode) override;
    Result<> symlink(const std::string& target, const std::string& path) override;
    Result<std::vector<FileInfo>> list(const std::string& path) override;
    Result<FileInfo> info(const std::string& path) override;
    Result<> give_to_owner_of(const std::string&, const std::string&) override { return {}; }
    Result<std::uint64_t> available_bytes(const std::string& path) override;
    Result<std::uint64_t> size_bytes(const std::string& path) override;
    Result<std::unique_ptr<FileLock>> lock(const std::string& path) override;

private:
    struct Change {
        bool truncates = false;
        std::uint64_t offset = 0;  // or the new size
        ByteBuffer bytes = {};
    };
    struct Inode {
        ByteBuffer now;               // what readers see
        ByteBuffer disk;              // what was synced
        std::vector<Change> pending;  // from disk to now, but for what a failed sync dropped
    };
    struct Directory;
    struct Entry {
        std::shared_ptr<Inode> file;
        std::shared_ptr<Directory> directory;
    };
    struct NameChange {
        std::string gone;      // empty: none
        std::string appeared;  // empty: none
        Entry entry = {};
    };
    struct Directory {
        std::map<std::string, Entry> now;
        std::map<std::string, Entry> disk;
        std::vector<NameChange> pending;
    };
    class Handle;
    class Lock;
    struct Locks {
        std::set<std::string> held;
    };

    static void apply(const Change& change, ByteBuffer& bytes);
    static void apply(const NameChange& change, std::map<std::string, Entry>& names);
    static std::shared_ptr<Directory> cut(const Directory& directory, Cut how, Random& random);
    static std::shared_ptr<Inode> cut(const Inode& inode, Cut how, Random& random);
    static void cut_write(const Change& change, Cut how, Random& random, ByteBuffer& bytes);
    static void cut_overwrite(const Change& change, Random& random, ByteBuffer& bytes);
    static std::uint64_t bytes_of(const Directory& directory);

    // The directory that `path` lies in, and its last component.
    Result<std::shared_ptr<Directory>> parent_of(const std::string& path, std::string& name) const;
    Result<Entry> find(const std::string& path) const;
    Result<> step(std::string_view doing, const std::string& path);
    void change_names(Directory& directory, NameChange change);
    static bool fires(std::uint64_t& countdown) { return countdown > 0 && --countdown == 0; }

    std::shared_ptr<Directory> root_;
    std::shared_ptr<Locks> locks_ = std::make_shared<Locks>();
    std::uint64_t operations_ = 0;
};

}  // namespace walvault::simulation
