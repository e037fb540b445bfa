// ThawRecord: what a restore had thawed and what was agreed to, in a file beside its directory, so
// that it goes on after it was killed and neither asks nor pays twice.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"

namespace walvault::agent {

struct ThawRecord {
    struct Object {
        std::uint64_t size_bytes = 0;
        std::string storage_class;
        // When the store was asked; nothing: agreed to, and maybe not asked yet.
        std::optional<WallTime> asked_at = {};
    };
    std::string repository;  // its id, in hex
    std::string url;
    std::map<std::string, Object> objects;
};

// "/srv/pg/restored.walvault-thaw"; nothing in the directory itself, which stays as a restore wants
// to find it.
std::string thaw_record_path(const std::string& pgdata);

// Nothing if there is none. Errors: corrupt naming the file, unsupported for a later version, io.
Result<std::optional<ThawRecord>> read_thaw_record(FileSystem& files, const std::string& path);
// Old or new, never half; directories on the way are made. Errors: io, no_space.
Result<> write_thaw_record(FileSystem& files, const std::string& path, const ThawRecord& record);
// No error when absent.
Result<> remove_thaw_record(FileSystem& files, const std::string& path);

}  // namespace walvault::agent
