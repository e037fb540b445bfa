// Capture: the data path: WAL pulled from the server, compared with what is stored, pushed into the
// repository.
#pragma once

#include <memory>

#include "agent/config.h"
#include "agent/wal_pipeline.h"
#include "base/backoff.h"
#include "wal/receiver.h"

namespace walvault::agent {

// run() attaches, streams, and attaches again after every loss, until stop(). Never acknowledges
// what is not flushed; disconnects when it cannot store, so that the server is not kept from
// shutting down.
class Capture {
public:
    Capture(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
            Progress& progress, AgentMetrics& metrics, const Clock& clock,
            const ServerConfig& server, const RepoConfig& repo);

    // Returns when stopped, or, with `until_caught_up`, when everything the server had at the first
    // attachment is flushed. Errors: refused (another cluster), forked, unsupported: what waiting
    // will not mend.
    Task<Result<>> run(bool until_caught_up);
    // Drains, flushes, closes the tail, says goodbye to the server. run() then returns.
    void stop();

    // Flush interval, level and pack size; the rest needs a new Capture.
    void reconfigure(const ServerConfig& server, const RepoConfig& repo);

    bool connected() const { return connected_; }
    const std::optional<storage::ClusterRecord>& cluster() const { return cluster_; }
    const std::optional<wal::ServerIdentity>& identity() const { return identity_; }
    // Why the last attachment ended; empty while none has.
    const std::string& last_error() const { return last_error_; }
    const std::optional<Error>& last_failure() const { return last_failure_; }
    std::optional<Lsn> gap_at() const { return gap_at_; }

private:
    Task<Result<>> attach_and_stream();
    Task<Result<storage::HistoryRecord>> settle_history(const wal::SlotPosition& slot);
    Task<Result<>> store_timeline_histories(const storage::HistoryRecord& history);
    Task<Result<storage::WalTracker>> primed_tracker(const storage::HistoryRecord& history);
    Task<Result<>> compare_overlap(const storage::HistoryRecord& history, Lsn from);
    Task<Result<>> stream();
    Task<Result<>> take_slice(const wal::WalSlice& slice);
    Task<> acknowledge(Lsn flushed);
    Task<> close_when_broken();
    Task<> close_when_slow();
    void note_disconnect(const Error& error);

    asio::any_io_executor executor_;
    Pools& pools_;
    storage::Repository& repository_;
    Progress& progress_;
    AgentMetrics& metrics_;
    const Clock& clock_;
    ServerConfig server_;
    WalPipeline pipeline_;
    Backoff backoff_;
    Event stopped_;
    wal::Hangup hangup_;
    TaskGroup tasks_;

    std::unique_ptr<wal::Receiver> receiver_;
    std::optional<wal::ServerIdentity> identity_;
    std::optional<storage::ClusterRecord> cluster_;
    std::optional<Lsn> goal_;  // until_caught_up: the server's position at the first attachment
    std::optional<wal::ServerPosition> last_position_;
    std::optional<Lsn> gap_at_;
    std::string last_error_;
    std::optional<Error> last_failure_;
    ByteBuffer overlap_;  // received before the pipeline began, while comparing
    bool until_caught_up_ = false;
    bool stopping_ = false;
    bool streaming_ = false;
    bool connected_ = false;
};

}  // namespace walvault::agent
