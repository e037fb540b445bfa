// PostgreSQL's backup_manifest: parsed as it streams in, its own checksum verified over every byte.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "proto/lsn.h"

namespace walvault {

struct BackupManifestFile {
    std::string path;  // decoded from "Path" or "Encoded-Path"
    std::uint64_t size_bytes = 0;
    std::string checksum_algorithm;  // "CRC32C", "SHA256", or empty for NONE
    ByteBuffer checksum;             // as the manifest writes it
};
struct BackupManifestWalRange {
    TimelineId timeline = 0;
    Lsn start_lsn;
    Lsn end_lsn;
};
struct BackupManifestSummary {
    unsigned version = 0;                 // 1 or 2
    std::uint64_t system_identifier = 0;  // version 2 only
    std::uint64_t file_count = 0;
    std::vector<BackupManifestWalRange> wal_ranges;
};

// Memory does not grow with the number of files. SHA-256 of the bytes is computed by `sha256`, so
// that this room needs no crypto library: called with each piece, then once with an empty span
// to take the 32-byte digest out.
class BackupManifestReader {
public:
    using OnFile = std::function<Result<>(const BackupManifestFile&)>;
    using Sha256 = std::function<Id32(ByteSpan piece, bool final)>;
    BackupManifestReader(OnFile on_file, Sha256 sha256);
    ~BackupManifestReader();
    // Pieces may be cut anywhere. Errors: corrupt, or what on_file returned.
    Result<> feed(ByteSpan bytes);
    // Errors: corrupt if incomplete or if Manifest-Checksum does not match; unsupported for another version.
    Result<BackupManifestSummary> finish();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault
