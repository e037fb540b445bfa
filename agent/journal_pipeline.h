// JournalPipeline: cuts of a database's journals sealed, written in order, synced, and their tails
// closed into packs.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "agent/journal_router.h"
#include "base/blocking.h"
#include "base/clock.h"
#include "base/task_group.h"
#include "storage/repository.h"

namespace walvault::agent {

// Everything on the loop thread; blocking work goes to pools of its own, and to `store` for what
// belongs to the repository's thread. The physical stream waits for none of it.
//
// Durability: stored_lsn() is the main journal's end, synced, and the other journals of the
// database were synced before it. Nothing else may be acknowledged to the slot.
class JournalPipeline {
public:
    static constexpr std::size_t kInFlightBytes = 16 << 20;

    struct Options {
        std::uint64_t pack_bytes = 64 << 20;  // stored bytes of a tail
        int level = 1;                        // zstd, of tails; packs are compressed better
        std::chrono::seconds tail_age_max{3600};
    };
    struct Threads {
        Pool& cpu;
        Pool& store;
    };
    JournalPipeline(asio::any_io_executor executor, Threads threads,
                    storage::Repository& repository, const Clock& clock, const Options& options);
    ~JournalPipeline();

    // Opens a tail of each; `journals` has the main one first. Not while it runs. Errors: those of
    // Repository::open_journal_tail().
    Task<Result<>> begin(std::vector<storage::JournalRecord> journals,
                         storage::ClusterRecord cluster, TimelineId timeline);
    // Takes a cut, in order. Whoever puts large ones waits for room after each.
    void put(JournalCut cut);
    // Errors: what broke the pipeline.
    Task<Result<>> wait_for_room();
    // The session ended, perhaps inside a transaction: what was put of it does not count. A tail
    // that ends inside it is closed, and the next session begins in a new one.
    Task<Result<>> end_session();
    // Writes what was put, closes the tails, ends the tasks. Then begin() may be called again. Also
    // after an error; then the repository's recover_tails() sees to what the tails hold.
    Task<Result<>> finish();

    bool is_running() const { return running_; }
    // Nothing is on its way.
    bool is_idle() const { return queue_.empty() && !writing_; }
    Lsn stored_lsn() const { return stored_lsn_; }
    std::uint64_t stored_bytes() const { return stored_bytes_; }
    // Up to where each journal has everything, by number.
    std::vector<Lsn> ends() const;
    // Of each tail that the ledger opens and does not end yet: its path, and the end of its last
    // synced frame.
    std::map<std::string, std::uint64_t> synced_tails() const { return synced_tails_; }
    const std::optional<Error>& error() const { return error_; }
    // stored_lsn() moved, or it broke.
    Event& changed() { return changed_; }

private:
    struct Journal {
        storage::JournalRecord record;
        std::unique_ptr<storage::JournalTail> tail;
        SteadyTime begun_at{};
    };
    Task<> write_loop();
    std::vector<JournalCut> take_group();
    Task<Result<>> write(std::vector<JournalCut> cuts);
    Task<Result<>> write_batches(Journal& journal, std::vector<JournalBatch> batches);
    Task<Result<>> write_quiet(Journal& journal, Lsn end_lsn);
    Task<Result<>> append_frame(Journal& journal, storage::SealedJournalFrame frame);
    Task<Result<>> sync(Journal& journal);
    Task<Result<>> note_synced();
    Task<Result<>> open_tail(Journal& journal, Lsn start);
    Task<Result<>> turn_tail(Journal& journal);
    Task<Result<>> turn_if_due(Journal& journal);
    Task<> close_tail(std::unique_ptr<storage::JournalTail> tail);
    Task<Result<>> close_now(std::unique_ptr<storage::JournalTail> tail);
    Task<> drop_tails();
    void note_tail(const Journal& journal);
    void break_with(Error error);

    asio::any_io_executor executor_;
    Threads threads_;
    Pool disk_{1};     // appends and syncs
    Pool rewrite_{1};  // closed tails into packs
    storage::Repository& repository_;
    const Clock& clock_;
    Options options_;
    storage::ClusterRecord cluster_;
    TimelineId timeline_ = 0;
    std::vector<Journal> journals_;
    std::vector<JournalCut> queue_;
    std::size_t in_flight_bytes_ = 0;
    std::map<std::string, std::uint64_t> synced_tails_;
    Lsn stored_lsn_;
    std::uint64_t stored_bytes_ = 0;
    SteadyTime last_witness_at_{};
    bool writing_ = false;
    bool running_ = false;
    bool finishing_ = false;
    std::optional<Error> error_;
    Event work_;
    Event changed_;
    TaskGroup tasks_;
    TaskGroup closings_;
};

}  // namespace walvault::agent
