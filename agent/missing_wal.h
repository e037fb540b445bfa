// MissingWal: WAL that the server has removed, got segment by segment by the operator's command and
// taken like WAL of the stream, so that no gap arises.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "agent/history_choice.h"
#include "agent/metrics_catalogue.h"
#include "agent/wal_comparison.h"
#include "agent/wal_pipeline.h"

namespace walvault::agent {

// On the loop thread; the command runs on a pool of its own. A segment counts only when all of it
// that is stored already is equal, and all behind that is whole WAL that continues it (page headers
// with system and timeline, xl_prev, CRC); else nothing of it is taken. Until it has passed it lies
// in a new directory below TMPDIR (/tmp) that only this user can look into.
class MissingWal {
public:
    MissingWal(Pools& pools, storage::Repository& repository, WalPipeline& pipeline,
               Progress& progress, AgentMetrics& metrics)
        : pools_(pools),
          repository_(repository),
          pipeline_(pipeline),
          progress_(progress),
          metrics_(metrics) {}

    // The command counts from the next segment on; empty: there is none.
    void configure(const ServerConfig& server) {
        words_ = server.wal_fetch;
        timeout_ = server.wal_fetch_timeout;
    }
    bool is_configured() const { return !words_.empty(); }

    // Continues start.history from its end to start.fetch->to, while no stream runs. What was taken
    // is flushed when this returns, also with an error. Errors: not_found (the command says that a
    // segment is not there), refused (one does not continue what is stored), unavailable (the
    // command failed), cancelled; others as the repository gives them.
    Task<Result<>> fetch(const StreamStart& start, const storage::ClusterRecord& cluster);
    // fetch() soon returns cancelled, now and ever after.
    void cancel() { *cancelled_ = true; }

private:
    struct Run;
    struct Segment;

    Task<Result<>> take_all(Run& run);
    Task<Result<>> take_segment(Run& run, Lsn at);
    Task<Result<std::shared_ptr<Segment>>> get(const Run& run, Lsn at);
    Task<Result<>> check(Run& run, const Segment& segment, Lsn at);
    Task<Result<>> append(const Run& run, const Segment& segment, Lsn at);
    Task<Result<ByteBuffer>> read(const Segment& segment, std::uint64_t offset, std::uint64_t end);

    Pools& pools_;
    storage::Repository& repository_;
    WalPipeline& pipeline_;
    Progress& progress_;
    AgentMetrics& metrics_;
    std::vector<std::string> words_;
    std::chrono::milliseconds timeout_{};
    std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace walvault::agent
