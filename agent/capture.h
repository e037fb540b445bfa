// Capture: the data path: WAL pulled from the server, compared with what is stored, pushed into the
// repository.
#pragma once

#include <memory>

#include "agent/config.h"
#include "agent/history_choice.h"
#include "agent/missing_wal.h"
#include "agent/other_hosts.h"
#include "agent/wal_comparison.h"
#include "agent/wal_pipeline.h"
#include "base/backoff.h"

namespace walvault::agent {

// run() attaches, streams, and attaches again after every loss, until stop(). Which history is
// continued is decided anew each time (HistoryChoice), and every byte that is stored already is
// compared before one is added. Never acknowledges what is not flushed; disconnects when it cannot
// store, so that the server is not kept from shutting down.
class Capture {
public:
    Capture(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
            Progress& progress, AgentMetrics& metrics, const Clock& clock,
            const ServerConfig& server, const RepoConfig& repo,
            AttachReceiver attach = &wal::Receiver::attach);

    // Returns when stopped, or, with `until_caught_up`, when everything the server had at the first
    // attachment is flushed. Errors: refused (another cluster), unsupported: what waiting will not
    // mend.
    Task<Result<>> run(bool until_caught_up);
    // Drains, flushes, closes the tail, says goodbye to the server. run() then returns.
    void stop();

    // Flush interval, level and pack size; the rest needs a new Capture.
    void reconfigure(const ServerConfig& server, const RepoConfig& repo);

    // While `away` the server is left alone: the stream ends, and none begins. For whoever drops
    // the slot, which must not be in use.
    void stay_away(bool away);
    // The slot was dropped, and why: for the ledger, when it is made anew or WAL is missing then.
    void note_given_up(const std::string& reason) { choice_.note_given_up(reason); }

    // A copy has the history's WAL up to `lsn`: told to the server where commits wait for that.
    void note_offloaded(const Id16& history, Lsn lsn);
    // Whether the server waits for this agent's flush before a commit returns.
    void set_synchronous(bool synchronous);
    bool synchronous() const { return synchronous_; }

    std::map<std::string, std::uint64_t> synced_tails() const { return pipeline_.synced_tails(); }
    std::uint64_t attachment_count() const { return attachment_count_; }
    bool connected() const { return connected_; }
    // Connected, and the server's WAL was found to be the history's as far as it is stored.
    bool is_settled() const { return connected_ && comparison_ && comparison_->is_complete(); }
    const std::optional<storage::ClusterRecord>& cluster() const { return cluster_; }
    const std::optional<wal::ServerIdentity>& identity() const { return identity_; }
    // Why the last attachment ended; empty while none has.
    const std::string& last_error() const { return last_error_; }
    const std::optional<Error>& last_failure() const { return last_failure_; }

private:
    // Why an attachment ended, and whether the next one may begin at once.
    struct Ended {
        Result<> result;
        bool again = false;
    };
    Task<Ended> attach_and_stream();
    Task<Result<StreamStart>> attach();
    Task<Ended> fetch_missing();
    Task<Result<>> fetch_from_elsewhere();
    Task<Result<>> begin(const StreamStart& start);
    Task<Result<>> stream();
    void note_received(const wal::WalSlice& slice);
    ByteSpan not_stored(const wal::WalSlice& slice) const;
    Result<> take_slice_here(const wal::WalSlice& slice);
    Task<Result<>> take_slice(const wal::WalSlice& slice);
    Result<> take_end(const wal::StreamEnded& end);
    Result<> take_position(const wal::ServerPosition& position);
    void note_same_history();
    bool nothing_continues(const Error& error);
    bool note_what_was_learned(const Error& error);
    void acknowledge_at_once();
    Task<> acknowledge();
    bool copy_is_late();
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
    AttachReceiver attach_;
    WalPipeline pipeline_;
    HistoryChoice choice_;
    OtherHosts other_hosts_;
    MissingWal missing_wal_;
    Backoff backoff_;
    Event stopped_;  // or to stay away no longer
    wal::Hangup hangup_;
    TaskGroup tasks_;

    std::unique_ptr<wal::Receiver> receiver_;
    std::optional<wal::ServerIdentity> identity_;
    std::optional<storage::ClusterRecord> cluster_;
    std::optional<Lsn> goal_;  // until_caught_up: the server's position at the first attachment
    std::optional<wal::ServerPosition> last_position_;
    std::optional<StreamStart> start_;  // of this attachment
    std::optional<WalComparison> comparison_;
    std::string last_error_;
    std::optional<Error> last_failure_;
    int broken_starts_ = 0;
    int immediate_ = 0;  // attachments in a row that followed one another at once
    bool until_caught_up_ = false;
    bool stopping_ = false;
    bool away_ = false;
    bool streaming_ = false;  // until all that was received is flushed
    bool receiving_ = false;
    bool connected_ = false;
    bool timeline_ended_ = false;
    bool synchronous_ = false;
    std::uint64_t attachment_count_ = 0;
    Lsn awaited_lsn_;  // what a copy is to take next, and since when
    SteadyTime awaited_since_{};
    bool server_ended_ = false;  // the last stream, by a clean shutdown
};

}  // namespace walvault::agent
