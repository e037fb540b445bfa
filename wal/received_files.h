// ReceivedFiles: what arrived of a base backup, 24 bytes a file, to hold against the manifest at the end.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "proto/backup_manifest.h"

namespace walvault::wal {

class ReceivedFiles {
public:
    // Errors: corrupt beyond 20 million files.
    Result<> add(std::string_view path, std::uint64_t size_bytes, std::uint32_t crc32c);
    // No more files. Errors: corrupt if a path came twice.
    Result<> seal();
    // Errors: corrupt unless the file came once, with this size and checksum, and was not matched before.
    Result<> match(const BackupManifestFile& file);
    // Errors: corrupt if a file came that the manifest does not name.
    Result<> all_matched() const;

private:
    struct Record {
        std::uint64_t path_hash;
        std::uint64_t size_bytes : 63;
        std::uint64_t matched : 1;
        std::uint32_t crc32c;
    };
    std::vector<Record> records_;
    std::uint64_t matched_count_ = 0;
};

}  // namespace walvault::wal
