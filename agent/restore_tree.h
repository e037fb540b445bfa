// RestoreTree: makes files below PGDATA and the tablespaces, and nowhere else, whatever their paths
// say.
//
// Works on descriptors and never follows a symbolic link on the way, so that neither a hostile
// manifest nor someone who changes the directory meanwhile leads a write outside. May be called
// from any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace walvault::agent {

struct FileOwner {
    uid_t user = 0;
    gid_t group = 0;
    std::string name;
};

// An open file being restored; closed when destroyed.
class RestoredFile {
public:
    RestoredFile() = default;
    RestoredFile(int descriptor, std::string path)
        : descriptor_(descriptor), path_(std::move(path)) {}
    ~RestoredFile();
    RestoredFile(RestoredFile&& other) noexcept;
    RestoredFile& operator=(RestoredFile&& other) noexcept;

    bool is_open() const { return descriptor_ >= 0; }
    // Errors: no_space, io.
    Result<> write_at(std::uint64_t offset, ByteSpan bytes);
    // The file has `bytes` afterwards, the new ones zeros. Large files of whole blocks are written
    // past the page cache from then on, where the file system can do that: what is restored would
    // push everything else out of it, and to write it back later takes several times as long.
    Result<> set_size(std::uint64_t bytes);
    Result<> sync();

private:
    int descriptor_ = -1;
    std::string path_;
    bool is_direct_ = false;
};

class RestoreTree {
public:
    // `roots`: "" is PGDATA, "pg_tblspc/16384" the directory of that tablespace. All exist.
    // `owner`: who gets everything made; nothing: whoever runs this.
    static Result<RestoreTree> open(const std::map<std::string, std::string>& roots,
                                    std::optional<FileOwner> owner);
    RestoreTree(RestoreTree&& other) noexcept;
    ~RestoreTree();

    // Directories on the way are made with mode 0700. `mode` is cut to what PostgreSQL accepts.
    // Errors: corrupt for a path that is absolute, empty, or has "." or ".." in it; refused if
    // there is such a file already; io, no_space.
    Result<RestoredFile> create_file(const std::string& path, unsigned mode) const;
    Result<> make_directory(const std::string& path, unsigned mode) const;
    Result<> make_symlink(const std::string& path, const std::string& target) const;
    Result<> write_file(const std::string& path,
                        ByteSpan bytes) const;  // create, write, sync, close
    Result<> rename(const std::string& from,
                    const std::string& to) const;    // below one root; synced
    Result<> remove(const std::string& path) const;  // no error when absent
    // Everything written so far below every root is on disk when this returns.
    Result<> sync_file_systems() const;

private:
    struct Root {
        std::string prefix;  // "" or "pg_tblspc/16384/"
        std::string directory;
        int descriptor = -1;
    };
    struct Parent {
        int descriptor = -1;
        std::string name;  // last component
        std::string text;  // whole path, for messages
    };
    RestoreTree() = default;
    Result<Parent> open_parent(const std::string& path) const;
    Result<> give(int descriptor, const std::string& path) const;

    std::vector<Root> roots_;  // PGDATA last, so that the first prefix that fits is the right one
    std::optional<FileOwner> owner_;
};

// True for a relative path of plain components.
bool is_safe_relative_path(std::string_view path);

}  // namespace walvault::agent
