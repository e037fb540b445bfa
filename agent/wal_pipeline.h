// WalPipeline: WAL into frames, frames sealed in parallel, written in order, synced together.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "agent/metrics_catalogue.h"
#include "agent/pools.h"
#include "agent/progress.h"
#include "base/task_group.h"
#include "storage/repository.h"
#include "storage/wal_tracker.h"

namespace walvault::agent {

// One run of a stream: from begin() to finish(). Everything on the loop thread; blocking work goes
// to the pools. Memory: at most kInFlightBytes of plain WAL, its frames' ciphertext beside it.
//
// Durability: a position is flushed when the frames before it were fdatasynced in a tail whose
// directory and ledger entries are synced; `on_flushed` is then called, and nothing else says so.
class WalPipeline {
public:
    static constexpr std::uint64_t kFrameBytes = 1 << 20;
    static constexpr std::uint64_t kInFlightBytes = 32 << 20;

    struct Options {
        std::chrono::milliseconds flush_interval{200};
        std::uint64_t pack_bytes = 64 << 20;
        int level = 1;
        std::chrono::seconds tail_age_max{3600};
    };

    WalPipeline(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
                Progress& progress, AgentMetrics& metrics, const Clock& clock,
                const Options& options, std::function<void(Lsn)> on_flushed);
    ~WalPipeline();

    // `start` is progress.flushed_lsn(); `tracker` has seen everything before it that it needs.
    void begin(const storage::HistoryRecord& history, const storage::ClusterRecord& cluster,
               storage::WalTracker tracker);
    // Checks and takes WAL that continues the stream; waits while too much is in flight. Errors:
    // corrupt (nothing of `wal` that fails its check is ever flushed); what broke the pipeline.
    Task<Result<>> append(ByteSpan wal);
    // The same without a wait, where has_room(); whoever calls it calls flush_here() when nothing
    // more is at hand.
    bool has_room() const { return in_flight_bytes_ < kInFlightBytes; }
    Result<> append_here(ByteSpan wal);
    // Where synchronous commits wait, a small flush is done in the handler that is running, without
    // a way through the writer's coroutine; a larger one is left to the writer. False: the disk
    // took long, and another thread leads the loop; the caller awaits end_flush_here() at once.
    bool flush_here();
    Task<> end_flush_here();
    // A synchronous commit waits for what is appended: it is flushed at once, with all that came
    // while the flush before it ran. Never more than one sync in flight.
    void set_flush_at_once(bool at_once);
    // How long the oldest WAL that was taken has waited to be synced; zero when none waits.
    SteadyTime::duration unflushed_for() const;
    // Nothing newer than `lsn` was on the server at `at`. Recorded in the tail from time to time
    // while idle.
    void note_quiet(Lsn lsn, WallTime at);
    // Flushes what was taken, closes the tail, ends the tasks. Then begin() may be called again.
    Task<Result<>> finish();
    // Of each tail of this run that the ledger opens and does not end yet: its path, and the end of
    // its last synced frame.
    std::map<std::string, std::uint64_t> synced_tails() const;
    // From the next frame on.
    void set_options(const Options& options) { options_ = options; }
    // Set once; afterwards nothing is flushed any more until begin().
    const std::optional<Error>& error() const { return error_; }
    Event& failed() { return failed_; }

private:
    struct Tail;
    struct Frame;

    Result<> feed(ByteSpan wal);
    void cut_frame();
    // Of what is open; null where nothing is, or no tail can be planned.
    std::shared_ptr<Frame> take_open_frame();
    void cut_quiet_frame(WallTime at);
    void place_in_tail(Frame& frame);
    void enqueue(std::shared_ptr<Frame> frame);
    bool may_flush_here() const;
    void note_flush_here();
    Result<> plan_next_tail();
    Task<> seal_frame(std::shared_ptr<Frame> frame);
    Task<> flush_timer();
    Task<> write_loop();
    Task<Result<>> write_batch(std::vector<std::shared_ptr<Frame>> batch);
    static bool has_barrier(const std::vector<std::shared_ptr<Frame>>& batch);
    Task<Result<>> enter_barriers(const std::vector<std::shared_ptr<Frame>>& batch);
    static Result<> append_frames(const std::vector<std::shared_ptr<Frame>>& batch, int level,
                                  bool waited_for);
    Task<Result<>> sync_frames(const std::vector<std::shared_ptr<Frame>>& batch);
    // On a thread that may block.
    Result<> write_and_sync(const std::vector<std::shared_ptr<Frame>>& batch, int level);
    void note_sync(const Result<>& done, SteadyTime start);
    void close_if_whole(const std::shared_ptr<Tail>& tail);
    Task<> close_tail(std::shared_ptr<Tail> tail);
    Task<> drop_tails();
    std::vector<std::shared_ptr<Frame>> next_batch();
    void note_flushed(const std::vector<std::shared_ptr<Frame>>& batch);
    void break_with(Error error);

    asio::any_io_executor executor_;
    Pools& pools_;
    storage::Repository& repository_;
    Progress& progress_;
    AgentMetrics& metrics_;
    const Clock& clock_;
    Options options_;
    std::function<void(Lsn)> on_flushed_;

    storage::HistoryRecord history_;
    storage::ClusterRecord cluster_;
    std::optional<storage::WalTracker> tracker_;
    std::shared_ptr<Tail> cutting_;             // the tail that frames are cut for
    std::vector<std::shared_ptr<Tail>> tails_;  // of this run, not yet closed
    ByteBuffer open_;                           // plain bytes of the frame being filled
    Lsn open_start_;
    SteadyTime open_since_{};
    std::deque<std::shared_ptr<Frame>> queue_;  // cut, in order, not yet written
    std::uint64_t in_flight_bytes_ = 0;
    bool flush_at_once_ = false;
    bool writing_ = false;  // a batch is on its way to the disk
    SteadyTime writing_since_{};
    std::vector<std::shared_ptr<Frame>> batch_here_;  // by flush_here()
    Result<> done_here_;
    bool finishing_ = false;
    bool running_ = false;
    std::optional<Error> error_;
    SteadyTime last_wal_at_{};
    SteadyTime last_quiet_at_{};
    SteadyTime last_witness_at_{};
    std::vector<ByteBuffer> spare_, spare_sealed_;  // buffers to fill again
    Event work_;    // for the writer: a frame was sealed, or the end is near
    Event room_;    // for append(): in-flight bytes went down
    Event filled_;  // for the timer: a frame was begun
    Event failed_;
    TaskGroup tasks_;
};

}  // namespace walvault::agent
