// OtherHosts: WAL that the server has removed, streamed from another one of the conninfo's servers
// and taken like WAL of the stream, so that no gap arises.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/history_choice.h"
#include "agent/wal_pipeline.h"
#include "wal/receiver.h"

namespace walvault::agent {

// How an attachment is made: the real one is wal::Receiver::attach.
using AttachReceiver = std::function<Task<Result<std::unique_ptr<wal::Receiver>>>(
    wal::Receiver::Options, const Clock&)>;

// On the loop thread. A standby often keeps what its primary has removed: for the slot of this
// agent that waits there, or by wal_keep_size. It is believed as far as the bytes go: the cluster's
// system identifier, the timeline's history, all that is stored from the segment's start on, then
// page headers, xl_prev and CRC. A server that differs is not asked again.
class OtherHosts {
public:
    OtherHosts(Pools& pools, storage::Repository& repository, WalPipeline& pipeline,
               Progress& progress, const Clock& clock, AttachReceiver attach)
        : pools_(pools),
          repository_(repository),
          pipeline_(pipeline),
          progress_(progress),
          clock_(clock),
          attach_(std::move(attach)) {}

    // The servers of `conninfo`, of which `streamed` is the one that has removed the WAL.
    void set_servers(const std::string& conninfo, const wal::ServerAddress& streamed);
    bool is_there() const { return !others_.empty(); }

    // Continues start.history from its end to start.fetch->to, while no stream runs. What was taken
    // is flushed when this returns, also with an error. Errors: not_found (no server has it, or
    // what it has is of another history), unavailable (one could not be asked, or there is more to
    // ask for), cancelled; others as the repository gives them. A server that says nothing for 30 s
    // counts as one that could not be asked.
    Task<Result<>> fetch(const StreamStart& start, const storage::ClusterRecord& cluster);
    // fetch() soon returns cancelled, now and ever after.
    void cancel() {
        cancelled_ = true;
        hangup_.hang_up();
    }

private:
    struct Run;

    Task<Result<>> ask_all(Run& run);
    Task<Result<>> ask(Run& run, const wal::ServerAddress& server);
    Task<Result<>> ask_patiently(Run& run, const wal::ServerAddress& server, wal::Silence& silence);
    Task<Result<>> stream(Run& run, wal::Receiver& receiver, wal::Silence& silence);
    Task<Result<>> take(Run& run, const wal::WalSlice& slice);

    Pools& pools_;
    storage::Repository& repository_;
    WalPipeline& pipeline_;
    Progress& progress_;
    const Clock& clock_;
    AttachReceiver attach_;
    std::string conninfo_;
    std::vector<wal::ServerAddress> others_;
    std::set<std::string> refused_;            // servers whose WAL was found to be another
    std::map<std::string, std::string> said_;  // of each server, why it gave nothing
    wal::Hangup hangup_;                       // of the one that is asked
    bool cancelled_ = false;
};

}  // namespace walvault::agent
