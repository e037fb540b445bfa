// BaseBackupJob: one base backup: the server's files as content chunks, only new ones stored.
#pragma once

#include <memory>
#include <string>

#include "agent/config.h"
#include "agent/metrics_catalogue.h"
#include "agent/pools.h"
#include "agent/progress.h"
#include "storage/repository.h"
#include "storage/repository_files.h"
#include "wal/connection.h"

namespace walvault::agent {

struct BackupRequest {
    std::string label = "walvault";
    bool fast_checkpoint = false;
};

struct DiskSpace {
    std::uint64_t available_bytes = 0;
    std::uint64_t size_bytes = 0;  // of the whole file system
};
// Errors: no_space unless half of the cluster fits beside the reserve, a part of the disk.
Result<> require_backup_space(const DiskSpace& space, std::uint64_t expected_bytes,
                              double reserve_ratio);

// Takes one from `streamed`, the server whose WAL is streamed. Complete only when the server's last
// result came without error, its manifest matched every file, and WAL from start to stop is flushed
// in one history; otherwise a BackupFailed entry says why, and nothing of it counts as a backup.
// Chunks that were stored stay and are shared by the next one. On the loop; memory: about 24 MiB
// whatever the cluster's size, plus 24 bytes a file while it runs.
class BaseBackupJob {
public:
    BaseBackupJob(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
                  Progress& progress, AgentMetrics& metrics, const Clock& clock,
                  const ServerConfig& server, const RepoConfig& repo,
                  const storage::ClusterRecord& cluster, const wal::ServerAddress& streamed);
    ~BaseBackupJob();

    // Errors: no_space (as require_backup_space), corrupt (the server's checksums or
    // manifest), gap (WAL of it did not arrive), cancelled, others as the connection and
    // the store give them.
    Task<Result<pb::BackupInfo>> run(BackupRequest request);
    // From anywhere on the loop: run() soon returns cancelled, unless it is complete already.
    void cancel();
    // The same for want of space, which `reason` tells: run() soon returns no_space.
    void give_way(const std::string& reason);

    std::uint64_t done_bytes() const;
    std::uint64_t expected_bytes() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault::agent
