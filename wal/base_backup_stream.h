// BaseBackupStream: BASE_BACKUP as a sequence of files, its manifest verified against what arrived.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/backup_manifest.h"
#include "wal/connection.h"

namespace walvault::wal {

struct BackupTablespace {
    std::uint32_t oid = 0;
    std::string location;
};
struct BackupStart {
    Lsn start_lsn;
    TimelineId timeline = 0;
    std::vector<BackupTablespace> tablespaces;  // without the base
    std::uint64_t expected_bytes = 0;           // the server's estimate
};
struct BackupStop {
    Lsn stop_lsn;
    TimelineId timeline = 0;
    BackupManifestSummary manifest;
};

// Where the files go. Paths are relative to PGDATA; a tablespace's begin with "pg_tblspc/OID/".
// Called in stream order, from the loop; awaited, so a slow consumer stops the reading.
class BackupConsumer {
public:
    struct Entry {
        enum class Type { file, directory, symlink } type = Type::file;
        std::string path;
        std::uint64_t size_bytes = 0;
        unsigned mode = 0600;
        std::string link_target;
    };
    virtual ~BackupConsumer() = default;
    virtual Task<Result<>> on_entry(const Entry& entry) = 0;
    virtual Task<Result<>> on_data(ByteSpan bytes) = 0;  // of the current file; copied if kept
    virtual Task<Result<>> on_file_end() = 0;
    // The manifest as the server wrote it, in pieces, after the last file. What it says is checked only
    // at the end: it counts once run_base_backup() has succeeded.
    virtual Task<Result<>> on_manifest(ByteSpan bytes) = 0;  // copied if kept
    virtual void on_progress(std::uint64_t done_bytes) = 0;
};

struct BackupOptions {
    std::string label = "walvault";
    bool fast_checkpoint = false;
    std::uint64_t max_rate_bytes = 0;  // per second; 0: unlimited
    // What a manifest that names its system (17 and later) must name; 0: not checked.
    std::uint64_t system_identifier = 0;
};

// Runs one BASE_BACKUP (MANIFEST 'yes', CRC32C, WAIT 0, TABLESPACE_MAP, PROGRESS) on `connection`, a
// physical replication one, in the grammar and the protocol of the server's major. `on_start` is called
// once before any file. Succeeds only if the server's last result came without error (a page checksum
// failure comes after the end row), every file in the manifest arrived with its size and checksum and no
// other did, and the manifest's own checksum, WAL range and system match. Errors: corrupt for any of
// those; unsupported for a major this build does not know; else as Connection.
Task<Result<BackupStop>> run_base_backup(Connection& connection, BackupOptions options,
                                         std::function<Task<Result<>>(BackupStart)> on_start,
                                         BackupConsumer& consumer);

// How many pages failed their checksum on the server, by the text of the backup's error; 0 where it
// failed for another reason.
std::uint64_t page_checksum_failures(const std::string& message);

}  // namespace walvault::wal
