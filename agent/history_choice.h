// HistoryChoice: asks the server, decides which history an attachment continues, and enters in the
// ledger what that means: a branch, a gap, a history resumed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/attachment.h"
#include "agent/pools.h"
#include "storage/repository.h"
#include "wal/receiver.h"

namespace walvault::agent {

// What to stream, decided anew at every attachment.
struct StreamStart {
    storage::HistoryRecord history;
    TimelineId timeline = 0;
    Lsn from_lsn;  // at or before the history's end: the bytes between are compared
    std::uint64_t segment_bytes = 0;
    bool behind = false;  // Follow::behind
    // The server has removed what comes next: nothing is streamed, it is fetched from elsewhere.
    struct Fetch {
        Lsn to;                        // what the server has begins here, or the timeline ends
        TimelineId next_timeline = 0;  // that continues at `to`; zero: none
    };
    std::optional<Fetch> fetch = {};
};

// On the loop thread. Remembers from one attachment to the next what comparing showed, until one
// was compared to its end.
class HistoryChoice {
public:
    HistoryChoice(Pools& pools, storage::Repository& repository, const Clock& clock,
                  std::string slot)
        : pools_(pools), repository_(repository), clock_(clock), slot_(std::move(slot)) {}

    // Makes the slot if it is missing, reads the server's timeline history, and gives where to
    // stream. Every history and every history file it names is in the ledger, synced. Errors:
    // unavailable (a standby that lags), not_found (a timeline's history file is missing), others
    // as server and repository give them.
    Task<Result<StreamStart>> choose(wal::Receiver& receiver,
                                     const storage::ClusterRecord& cluster);
    // Whether missing WAL can be fetched, and how long that may fail before there is a gap.
    void set_fetching(bool possible, std::chrono::milliseconds patience) {
        can_fetch_ = possible;
        fetch_patience_ = patience;
    }

    // The server's bytes differ from the stored ones; the next choice takes it into account.
    void note_difference(const StreamStart& start, Lsn at);
    // The server said that it has removed the WAL that was asked for (SQLSTATE 58P01).
    void note_missing_wal(const StreamStart& start, const std::string& server_message);
    // The slot cannot be used any more: it is made anew.
    void note_unusable_slot() { renew_slot_ = "the server had invalidated the slot"; }
    // The slot was dropped by this agent, and why.
    void note_given_up(std::string reason) { given_up_ = std::move(reason); }
    // How fetching ended that choose() asked for. True when the next choice need not wait: all was
    // fetched, or it is settled that the rest is not to be had.
    bool note_fetched(const StreamStart& start, const Result<>& fetched);
    // Everything stored was found equal.
    void note_followed();

private:
    Task<Result<ServerSide>> server_side(wal::Receiver& receiver,
                                         const storage::ClusterRecord& cluster);
    Task<Result<wal::SlotPosition>> settle_slot(wal::Receiver& receiver,
                                                const storage::ClusterRecord& cluster);
    Task<Result<std::optional<StreamStart>>> carry_out(Attachment attachment,
                                                       wal::Receiver& receiver,
                                                       const storage::ClusterRecord& cluster);
    Result<> require_room() const;
    std::optional<StreamStart> fetching_start(const storage::HistoryRecord& history,
                                              const ServerSide& server) const;
    Task<Result<>> open_branch(Branch branch, wal::Receiver& receiver,
                               const storage::ClusterRecord& cluster);
    Task<Result<>> open_beginning(Begin beginning, const storage::ClusterRecord& cluster);
    Task<Result<>> begin_behind_gap(const storage::HistoryRecord& history, const ServerSide& server,
                                    const storage::ClusterRecord& cluster);
    Task<Result<>> keep_timeline_history(const Id16& history, TimelineId timeline,
                                         wal::Receiver& receiver,
                                         const storage::ClusterRecord& cluster);
    const storage::HistoryRecord* find(const Id16& id) const;

    Pools& pools_;
    storage::Repository& repository_;
    const Clock& clock_;
    std::string slot_;
    std::vector<storage::HistoryRecord> histories_;
    std::optional<Id16> current_;
    std::vector<Difference> differences_;
    bool keeps_older_segments_ = true;
    std::string renew_slot_;       // why; empty: it is not to be made anew
    std::optional<Id16> missing_;  // the history whose continuation the server does not have
    Lsn missing_from_;
    std::string missing_message_;
    bool slot_was_made_ = false;
    std::string given_up_;  // why; empty: it was not
    bool can_fetch_ = false;
    std::chrono::milliseconds fetch_patience_{};
    std::optional<SteadyTime> fetch_fails_since_;
    Lsn fetch_fails_at_;
    std::optional<Id16> fetch_ended_;  // the history for which no more is to be had
    std::string fetch_message_;        // why
};

}  // namespace walvault::agent
