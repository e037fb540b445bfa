#include "agent/journal_pipeline.h"

#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"

namespace walvault::agent {
namespace {

// How often the index is told what is synced, so that damage is told from a torn end.
constexpr std::chrono::seconds kWitnessEvery{1};
constexpr std::size_t kGroupBytes = 1 << 20;

// Of this thread: packs have time, the stream has not. What cannot be lowered stays as it is.
void give_way() { ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 10); }

}  // namespace

JournalPipeline::JournalPipeline(asio::any_io_executor executor, Threads threads,
                                 storage::Repository& repository, const Clock& clock,
                                 const Options& options)
    : executor_(executor),
      threads_(threads),
      repository_(repository),
      clock_(clock),
      options_(options),
      work_(executor),
      changed_(executor),
      tasks_(executor),
      closings_(executor) {}

JournalPipeline::~JournalPipeline() = default;

Task<Result<>> JournalPipeline::begin(std::vector<storage::JournalRecord> journals,
                                      storage::ClusterRecord cluster, TimelineId timeline) {
    WV_ASSERT(!running_ && !journals.empty());
    cluster_ = std::move(cluster);
    timeline_ = timeline;
    journals_.clear();
    error_.reset();
    finishing_ = false;
    for (storage::JournalRecord& record : journals) {
        journals_.push_back({.record = std::move(record), .tail = nullptr});
        const Lsn start = journals_.back().record.end_lsn;
        auto opened = co_await open_tail(journals_.back(), start);
        if (opened) continue;
        co_await drop_tails();
        // What was opened before it is read back before the next try.
        error_ = opened.error();
        co_return opened;
    }
    stored_lsn_ = journals_[0].record.end_lsn;
    running_ = true;
    tasks_.spawn(write_loop());
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::open_tail(Journal& journal, Lsn start) {
    auto open = [this, record = journal.record, start] {
        return repository_.open_journal_tail(record, cluster_, timeline_, start);
    };
    WV_CO_TRY(journal.tail, co_await run_on(threads_.store, std::move(open)));
    journal.begun_at = clock_.steady_now();
    note_tail(journal);
    co_return Result<>{};
}

void JournalPipeline::note_tail(const Journal& journal) {
    synced_tails_[journal.tail->plan().path] = journal.tail->synced_offset();
}

std::vector<Lsn> JournalPipeline::ends() const {
    std::vector<Lsn> ends;
    for (const Journal& journal : journals_)
        ends.push_back(journal.tail ? journal.tail->end_lsn() : journal.record.end_lsn);
    return ends;
}

void JournalPipeline::put(JournalCut cut) {
    in_flight_bytes_ += cut.plain_bytes();
    queue_.push_back(std::move(cut));
    work_.notify();
}

Task<Result<>> JournalPipeline::wait_for_room() {
    while (!error_ && in_flight_bytes_ >= kInFlightBytes)
        co_await changed_.wait();
    if (error_) co_return fail(*error_);
    co_return Result<>{};
}

Task<> JournalPipeline::write_loop() {
    while (!error_) {
        if (queue_.empty()) {
            if (finishing_) break;
            co_await work_.wait();
            continue;
        }
        writing_ = true;
        std::vector<JournalCut> cuts = take_group();
        std::size_t bytes = 0;
        for (const JournalCut& cut : cuts)
            bytes += cut.plain_bytes();
        auto written = co_await write(std::move(cuts));
        writing_ = false;
        in_flight_bytes_ -= bytes;
        if (!written) break_with(written.error());
        changed_.notify();
    }
}

// What is synced at once: all that has come, but not over the end of a transaction behind which a
// tail may be turned.
std::vector<JournalCut> JournalPipeline::take_group() {
    std::size_t count = 0;
    std::size_t bytes = 0;
    while (count < queue_.size()) {
        const JournalCut& cut = queue_[count++];
        bytes += cut.plain_bytes();
        if (bytes >= kGroupBytes && cut.end_lsn) break;
    }
    const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(count);
    std::vector<JournalCut> group(std::make_move_iterator(queue_.begin()),
                                  std::make_move_iterator(end));
    queue_.erase(queue_.begin(), end);
    return group;
}

// The main journal's end vouches for the others: so they are synced before it is written at all.
// All that has come meanwhile is synced at once.
Task<Result<>> JournalPipeline::write(std::vector<JournalCut> cuts) {
    for (std::size_t i = journals_.size(); i-- > 0;) {
        Journal& journal = journals_[i];
        bool has_any = false;
        for (JournalCut& cut : cuts) {
            const bool has_batches = !cut.batches[i].empty();
            if (has_batches)
                WV_CO_CHECK(co_await write_batches(journal, std::move(cut.batches[i])));
            const bool moves = i == 0 && cut.end_lsn > journal.tail->planned_end_lsn();
            if (moves) WV_CO_CHECK(co_await write_quiet(journal, cut.end_lsn));
            has_any = has_any || has_batches || moves;
        }
        if (!has_any) continue;
        WV_CO_CHECK(co_await sync(journal));
        WV_CO_CHECK(co_await turn_if_due(journal));
    }
    // Another writer's claim ends this one: what it has synced may be behind what that one reads.
    WV_CO_CHECK(repository_.require_writer());
    stored_lsn_ = ends()[0];
    co_return co_await note_synced();
}

Task<Result<>> JournalPipeline::note_synced() {
    const SteadyTime now = clock_.steady_now();
    if (now - last_witness_at_ < kWitnessEvery) co_return Result<>{};
    last_witness_at_ = now;
    for (const Journal& journal : journals_) {
        auto note = [this, path = journal.tail->plan().path,
                     synced = journal.tail->synced_frames()] {
            return repository_.note_synced(path, synced);
        };
        WV_CO_CHECK(co_await run_on(threads_.store, std::move(note)));
    }
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::write_batches(Journal& journal, std::vector<JournalBatch> batches) {
    for (JournalBatch& batch : batches) {
        storage::JournalFramePlan plan = journal.tail->plan_batch(batch);
        auto seal = [plan = std::move(plan), batch = std::move(batch), level = options_.level] {
            return storage::seal_batch(plan, batch, level);
        };
        WV_CO_TRY(storage::SealedJournalFrame frame,
                  co_await run_on(threads_.cpu, std::move(seal)));
        WV_CO_CHECK(co_await append_frame(journal, std::move(frame)));
    }
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::write_quiet(Journal& journal, Lsn end_lsn) {
    storage::SealedJournalFrame frame =
        storage::seal_quiet(journal.tail->plan_quiet(end_lsn, WallTime{}));
    co_return co_await append_frame(journal, std::move(frame));
}

Task<Result<>> JournalPipeline::append_frame(Journal& journal, storage::SealedJournalFrame frame) {
    stored_bytes_ += frame.bytes.size();
    auto append = [tail = journal.tail.get(), frame = std::move(frame)]() mutable {
        return tail->append(std::move(frame));
    };
    co_return co_await run_on(disk_, std::move(append));
}

Task<Result<>> JournalPipeline::sync(Journal& journal) {
    auto sync = [tail = journal.tail.get()] { return tail->sync(); };
    WV_CO_CHECK(co_await run_on(disk_, std::move(sync)));
    note_tail(journal);
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::turn_if_due(Journal& journal) {
    const bool full = journal.tail->stored_bytes() >= options_.pack_bytes ||
                      journal.tail->frame_count() >= storage::kPackFramesMax;
    const bool old = journal.tail->frame_count() > 0 &&
                     clock_.steady_now() - journal.begun_at >= options_.tail_age_max;
    if ((!full && !old) || journal.tail->is_inside_transaction()) co_return Result<>{};
    co_return co_await turn_tail(journal);
}

// The next tail is there before the one before it is made a pack, which takes its time.
Task<Result<>> JournalPipeline::turn_tail(Journal& journal) {
    const Lsn end = journal.tail->end_lsn();
    journal.record.end_lsn = end;
    std::unique_ptr<storage::JournalTail> whole = std::move(journal.tail);
    auto opened = co_await open_tail(journal, end);
    closings_.spawn(close_tail(std::move(whole)));
    co_return opened;
}

Task<> JournalPipeline::close_tail(std::unique_ptr<storage::JournalTail> tail) {
    auto closed = co_await close_now(std::move(tail));
    if (!closed) break_with(closed.error());
}

Task<Result<>> JournalPipeline::close_now(std::unique_ptr<storage::JournalTail> tail) {
    const std::string path = tail->plan().path;
    auto shared = std::make_shared<std::unique_ptr<storage::JournalTail>>(std::move(tail));
    auto begin = [this, shared, path]() -> Result<std::unique_ptr<storage::JournalRewrite>> {
        auto begun = repository_.begin_closing(std::move(*shared));
        if (!begun) repository_.release_journal_tail(path);
        return begun;
    };
    WV_CO_TRY(auto rewrite, co_await run_on(threads_.store, std::move(begin)));
    auto held = std::make_shared<std::unique_ptr<storage::JournalRewrite>>(std::move(rewrite));
    auto run = [held] {
        give_way();
        return (*held)->run();
    };
    auto written = co_await run_on(rewrite_, std::move(run));
    // Also where it failed: the tail is nobody's then, and is read back.
    auto finish = [this, held] { return repository_.finish_closing(std::move(*held)); };
    auto finished = co_await run_on(threads_.store, std::move(finish));
    if (!written) co_return written;
    WV_CO_CHECK(finished);
    synced_tails_.erase(path);
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::end_session() {
    while (!error_ && !is_idle())
        co_await changed_.wait();
    if (error_) co_return fail(*error_);
    for (Journal& journal : journals_) {
        if (!journal.tail->is_inside_transaction()) continue;
        auto turned = co_await turn_tail(journal);
        if (turned) continue;
        break_with(turned.error());
        co_return turned;
    }
    co_return Result<>{};
}

Task<Result<>> JournalPipeline::finish() {
    if (!running_) co_return Result<>{};
    finishing_ = true;
    work_.notify();
    co_await tasks_.join();
    for (Journal& journal : journals_) {
        if (error_ || !journal.tail) continue;
        auto closed = co_await close_now(std::move(journal.tail));
        if (!closed) break_with(closed.error());
    }
    co_await closings_.join();
    co_await drop_tails();
    queue_.clear();
    in_flight_bytes_ = 0;
    running_ = false;
    if (error_) co_return fail(*error_);
    co_return Result<>{};
}

Task<> JournalPipeline::drop_tails() {
    for (Journal& journal : journals_) {
        if (!journal.tail) continue;
        auto shared =
            std::make_shared<std::unique_ptr<storage::JournalTail>>(std::move(journal.tail));
        auto drop = [this, shared] {
            repository_.drop_journal_tail(std::move(*shared));
            return 0;
        };
        co_await run_on(threads_.store, std::move(drop));
    }
    synced_tails_.clear();
}

void JournalPipeline::break_with(Error error) {
    if (!error_) error_ = std::move(error);
    work_.notify();
    changed_.notify();
}

}  // namespace walvault::agent
