#include "agent/wal_pipeline.h"

#include <algorithm>

#include "agent/wal_pipeline_parts.h"
#include "base/blocking.h"
#include "base/log.h"
#include "storage/repository_files.h"

namespace walvault::agent {
namespace {

constexpr std::size_t kBatchFramesMax = 16;
// Smaller than what the disk writes at least: zstd would take as long as the rest and save nothing
// until the tail is closed, when all is compressed together.
constexpr std::size_t kUncompressedFrameBytes = 4_KiB;
// So much goes past the page cache in any case.
constexpr std::size_t kPastCacheBytes = 32_KiB;
// So much at once is a backlog: to write zeros before it would be to write it twice.
constexpr std::size_t kWriteAheadBytesMax = 512_KiB;
// After WAL stops, one proof of quiet soon, then few: an idle server costs less than 1 kB a minute.
constexpr std::chrono::seconds kQuietAfter{1};
constexpr std::chrono::seconds kQuietEvery{15};
constexpr std::uint32_t kTailFramesMax = storage::kPackFramesMax;
constexpr std::size_t kFrameEntryBytes = 128;  // of a footer, at most

double seconds_since(SteadyTime start, SteadyTime now) {
    return std::chrono::duration<double>(now - start).count();
}

// Buffers that are filled again: a new megabyte from the kernel costs as much as to copy it.
ByteBuffer take_spare(std::vector<ByteBuffer>& spare) {
    if (spare.empty()) return {};
    ByteBuffer buffer = std::move(spare.back());
    spare.pop_back();
    return buffer;
}

void keep_spare(std::vector<ByteBuffer>& spare, ByteBuffer buffer) {
    if (spare.size() >= kBatchFramesMax || buffer.capacity() < kSmallFrameBytes) return;
    buffer.clear();
    spare.push_back(std::move(buffer));
}

}  // namespace

WalPipeline::WalPipeline(asio::any_io_executor executor, Pools& pools,
                         storage::Repository& repository, Progress& progress, AgentMetrics& metrics,
                         const Clock& clock, const Options& options,
                         std::function<void(Lsn)> on_flushed)
    : executor_(executor),
      pools_(pools),
      repository_(repository),
      progress_(progress),
      metrics_(metrics),
      clock_(clock),
      options_(options),
      on_flushed_(std::move(on_flushed)),
      work_(executor),
      room_(executor),
      filled_(executor),
      failed_(executor),
      tasks_(executor) {}

WalPipeline::~WalPipeline() = default;

void WalPipeline::begin(const storage::HistoryRecord& history,
                        const storage::ClusterRecord& cluster, storage::WalTracker tracker) {
    WV_ASSERT(!running_ && queue_.empty());
    history_ = history;
    cluster_ = cluster;
    tracker_ = std::move(tracker);
    WV_ASSERT(tracker_->end_lsn() == progress_.flushed_lsn());
    open_start_ = tracker_->end_lsn();
    open_.clear();
    cutting_.reset();
    tails_.clear();
    error_.reset();
    finishing_ = false;
    running_ = true;
    last_wal_at_ = last_witness_at_ = clock_.steady_now();
    last_quiet_at_ = {};
    tasks_.spawn(write_loop());
    tasks_.spawn(flush_timer());
}

Task<Result<>> WalPipeline::append(ByteSpan wal) {
    while (!error_ && in_flight_bytes_ >= kInFlightBytes)
        co_await room_.wait();
    if (error_) co_return fail(*error_);
    auto fed = feed(wal);
    if (flush_at_once_) work_.notify();
    co_return fed;
}

Result<> WalPipeline::append_here(ByteSpan wal) {
    if (error_) return fail(*error_);
    return feed(wal);
}

void WalPipeline::set_flush_at_once(bool at_once) {
    flush_at_once_ = at_once;
    work_.notify();
    filled_.notify();
}

std::map<std::string, std::uint64_t> WalPipeline::synced_tails() const {
    std::map<std::string, std::uint64_t> ends;
    for (const auto& tail : tails_)
        ends[tail->plan->path] = tail->end_offset;
    return ends;
}

SteadyTime::duration WalPipeline::unflushed_for() const {
    const SteadyTime now = clock_.steady_now();
    if (writing_) return now - writing_since_;
    return queue_.empty() ? SteadyTime::duration::zero() : now - queue_.front()->cut_at;
}

Result<> WalPipeline::feed(ByteSpan wal) {
    last_wal_at_ = clock_.steady_now();
    while (!wal.empty()) {
        std::size_t count = std::min<std::size_t>(wal.size(), kFrameBytes - open_.size());
        ByteSpan piece = wal.first(count);
        WV_CHECK(tracker_->feed(piece));
        if (open_.empty()) {
            if (open_.capacity() < kFrameBytes) open_ = take_spare(spare_);
            open_.reserve(kFrameBytes);
            open_since_ = last_wal_at_;
            if (!flush_at_once_) filled_.notify();
        }
        walvault::append(open_, piece);
        progress_.set_received(tracker_->end_lsn());
        wal = wal.subspan(count);
        if (open_.size() == kFrameBytes) cut_frame();
    }
    return {};
}

Result<> WalPipeline::plan_next_tail() {
    if (cutting_) {
        bool full = cutting_->cut_bytes >= options_.pack_bytes ||
                    cutting_->cut_frames >= kTailFramesMax ||
                    cutting_->footer_bytes >= storage::kFooterBytesGoal;
        bool old = cutting_->cut_bytes > 0 &&
                   clock_.steady_now() - cutting_->begun_at >= options_.tail_age_max;
        if (!full && !old) return {};
        cutting_->complete = true;
        close_if_whole(cutting_);
    }
    WV_TRY(auto plan, repository_.plan_tail(history_, cluster_, open_start_));
    cutting_ = std::make_shared<Tail>();
    cutting_->plan = std::move(plan);
    cutting_->end_lsn = open_start_;
    cutting_->begun_at = clock_.steady_now();
    tails_.push_back(cutting_);
    return {};
}

void WalPipeline::cut_frame() {
    if (auto frame = take_open_frame()) enqueue(std::move(frame));
}

std::shared_ptr<WalPipeline::Frame> WalPipeline::take_open_frame() {
    if (open_.empty() || error_) return nullptr;
    if (auto planned = plan_next_tail(); !planned) {
        break_with(planned.error());
        return nullptr;
    }
    auto frame = std::make_shared<Frame>();
    frame->notes = tracker_->take_frame();
    frame->place.start = open_start_.value;
    frame->place.end = open_start_.value + open_.size();
    frame->plain = std::move(open_);
    open_ = {};
    open_start_ = Lsn{frame->place.end};
    cutting_->cut_bytes += frame->plain.size();
    cutting_->footer_bytes += kFrameEntryBytes;
    for (const pb::MarkEntry& mark : frame->notes.marks)
        cutting_->footer_bytes += mark.ByteSizeLong() + 4;
    place_in_tail(*frame);
    return frame;
}

void WalPipeline::cut_quiet_frame(WallTime at) {
    if (auto planned = plan_next_tail(); !planned) return break_with(planned.error());
    auto frame = std::make_shared<Frame>();
    frame->place.kind = FrameKind::quiet;
    frame->place.start = frame->place.end = open_start_.value;
    frame->quiet_until = at;
    append_le<std::int64_t>(frame->plain, at.time_since_epoch().count());
    place_in_tail(*frame);
    enqueue(std::move(frame));
}

void WalPipeline::place_in_tail(Frame& frame) {
    frame.tail = cutting_;
    frame.place.frame_number = cutting_->cut_frames++;
    frame.place.synced_frames = cutting_->synced_frames;
    frame.cut_at = clock_.steady_now();
    in_flight_bytes_ += frame.plain.size();
}

void WalPipeline::enqueue(std::shared_ptr<Frame> frame) {
    queue_.push_back(frame);
    if (flush_at_once_ && frame->plain.size() <= kSmallFrameBytes) {
        frame->is_sealed = true;
        work_.notify();
        return;
    }
    tasks_.spawn(seal_frame(std::move(frame)));
}

Task<> WalPipeline::seal_frame(std::shared_ptr<Frame> frame) {
    auto work = [frame, level = options_.level, sealed = take_spare(spare_sealed_)]() mutable {
        frame->tail->plan->cipher.seal_into(frame->place, frame->plain, level, sealed);
        return std::move(sealed);
    };
    frame->sealed = co_await run_on(pools_.cpu, std::move(work));
    frame->is_sealed = true;
    work_.notify();
}

void WalPipeline::note_quiet(Lsn lsn, WallTime at) {
    if (error_ || !running_ || lsn != progress_.flushed_lsn() || !queue_.empty() || !open_.empty())
        return;
    progress_.set_recoverable_until(at);
    SteadyTime now = clock_.steady_now();
    bool noted_since = last_quiet_at_ > last_wal_at_;
    if (now - last_wal_at_ < kQuietAfter || (noted_since && now - last_quiet_at_ < kQuietEvery))
        return;
    last_quiet_at_ = now;
    cut_quiet_frame(at);
}

Task<> WalPipeline::flush_timer() {
    while (!finishing_ && !error_) {
        if (open_.empty() || flush_at_once_) {
            co_await filled_.wait();
            continue;
        }
        // Others wake through the same event, so that a wake-up alone says nothing.
        auto left = open_since_ + options_.flush_interval - clock_.steady_now();
        if (left <= SteadyTime::duration::zero())
            cut_frame();
        else
            co_await wait_for(failed_, left);
    }
}

std::vector<std::shared_ptr<WalPipeline::Frame>> WalPipeline::next_batch() {
    std::vector<std::shared_ptr<Frame>> batch;
    while (!queue_.empty() && batch.size() < kBatchFramesMax && queue_.front()->is_sealed &&
           (batch.empty() || batch.front()->tail == queue_.front()->tail)) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
    }
    return batch;
}

Task<> WalPipeline::write_loop() {
    while (!error_) {
        if (writing_) {  // by flush_here()
            co_await work_.wait();
            continue;
        }
        // Here, and not as it comes: one sync is for all that the socket had and for what came
        // during the sync before.
        if (flush_at_once_ && queue_.empty()) cut_frame();
        auto batch = next_batch();
        if (batch.empty()) {
            if (finishing_ && queue_.empty()) co_return;
            co_await work_.wait();
            continue;
        }
        auto tail = batch.front()->tail;
        writing_ = true;
        writing_since_ = batch.front()->cut_at;
        auto written = co_await write_batch(std::move(batch));
        writing_ = false;
        if (!written) {
            break_with(written.error());
            co_return;
        }
        close_if_whole(tail);
    }
}

Task<Result<>> WalPipeline::write_batch(std::vector<std::shared_ptr<Frame>> batch) {
    Tail& tail = *batch.front()->tail;
    if (!tail.writer) {
        auto open = [this, plan = tail.plan] { return repository_.open_tail(plan); };
        auto opened = co_await run_on(pools_.store, std::move(open));
        if (!opened) {
            metrics_.store_errors_total.at(StoreOperation::append).add();
            co_return fail(opened.error());
        }
        tail.writer = std::move(*opened);
    }
    if (has_barrier(batch)) WV_CO_CHECK(co_await enter_barriers(batch));
    WV_CO_CHECK(co_await sync_frames(batch));
    note_flushed(batch);
    SteadyTime now = clock_.steady_now();
    if (now - last_witness_at_ >= kWitnessEvery) {
        last_witness_at_ = now;
        auto note = [this, path = tail.plan->path, synced = tail.synced_frames] {
            return repository_.note_synced(path, synced);
        };
        auto noted = co_await run_on(pools_.store, std::move(note));
        if (!noted) metrics_.store_errors_total.at(StoreOperation::index).add();
        if (!noted) co_return noted;
    }
    co_return Result<>();
}

bool WalPipeline::has_barrier(const std::vector<std::shared_ptr<Frame>>& batch) {
    for (const auto& frame : batch)
        for (const pb::MarkEntry& mark : frame->notes.marks)
            if (mark.wal_level_minimal()) return true;
    return false;
}

// PostgreSQL replays nothing across a record that says wal_level=minimal. The ledger knows before
// the frame counts, so that no crash in between forgets it.
Task<Result<>> WalPipeline::enter_barriers(const std::vector<std::shared_ptr<Frame>>& batch) {
    std::vector<pb::LedgerEntry> entries;
    for (const auto& frame : batch)
        for (const pb::MarkEntry& mark : frame->notes.marks) {
            if (!mark.wal_level_minimal()) continue;
            pb::GapFound& gap = *entries.emplace_back().mutable_gap_found();
            gap.set_cluster(cluster_.name);
            gap.set_history_id(storage::text_of(history_.id));
            gap.set_timeline(history_.timeline);
            gap.set_from_lsn(mark.start_lsn());
            gap.set_to_lsn(mark.end_lsn());
            gap.set_from_at_us(progress_.recoverable_until().time_since_epoch().count());
            gap.set_to_at_us(clock_.now().time_since_epoch().count());
            gap.set_cause("wal_level was minimal: WAL cannot be replayed across it");
            log::error("gap.found", gap.cause(), {{"at_lsn", to_string(Lsn{mark.start_lsn()})}});
        }
    auto enter = [this, entries]() -> Result<> {
        for (const pb::LedgerEntry& entry : entries)
            WV_CHECK(repository_.append_to_ledger(entry));
        return {};
    };
    co_return co_await run_on(pools_.store, std::move(enter));
}

// On a thread that may block.
Result<> WalPipeline::append_frames(const std::vector<std::shared_ptr<Frame>>& batch, int level,
                                    bool waited_for) {
    storage::TailWriter& writer = *batch.front()->tail->writer;
    std::vector<ByteSpan> sealed;
    std::size_t bytes = 0;
    for (const auto& frame : batch) {
        if (frame->sealed.empty()) {
            const bool compress = frame->plain.size() > kUncompressedFrameBytes;
            frame->tail->plan->cipher.seal_into(frame->place, frame->plain,
                                                compress ? level : storage::kNotCompressed,
                                                frame->sealed);
        }
        sealed.emplace_back(frame->sealed);
        bytes += frame->sealed.size();
    }
    if (waited_for || bytes >= kPastCacheBytes) {
        if (waited_for && bytes < kWriteAheadBytesMax) WV_CHECK(writer.write_ahead(bytes));
        return writer.append_past_cache(sealed);
    }
    for (ByteSpan frame : sealed)
        WV_CHECK(writer.append(frame));
    return {};
}

Result<> WalPipeline::write_and_sync(const std::vector<std::shared_ptr<Frame>>& batch, int level) {
    WV_CHECK(append_frames(batch, level, true));
    WV_CHECK(batch.front()->tail->writer->sync());
    // A later writer has read what was synced before it began; what comes after it must not be
    // acknowledged.
    return repository_.require_writer();
}

void WalPipeline::note_sync(const Result<>& done, SteadyTime start) {
    if (!done) metrics_.store_errors_total.at(StoreOperation::flush).add();
    metrics_.flush_duration_seconds.observe(seconds_since(start, clock_.steady_now()));
}

Task<Result<>> WalPipeline::sync_frames(const std::vector<std::shared_ptr<Frame>>& batch) {
    SteadyTime start = clock_.steady_now();
    if (flush_at_once_) {
        auto all = [this, &batch, level = options_.level] { return write_and_sync(batch, level); };
        std::size_t bytes = 0;
        for (const auto& frame : batch)
            bytes += frame->plain.size();
        Result<> done;
        if (bytes <= kSmallFrameBytes)
            done = co_await run_here_or_on(pools_.waited_for, all);
        else
            done = co_await run_on(pools_.tail, all);
        if (done) progress_.set_written(Lsn{batch.back()->place.end});
        note_sync(done, start);
        co_return done;
    }
    auto append = [&batch, level = options_.level] { return append_frames(batch, level, false); };
    auto written = co_await run_on(pools_.tail, append);
    if (!written) metrics_.store_errors_total.at(StoreOperation::append).add();
    if (!written) co_return written;
    progress_.set_written(Lsn{batch.back()->place.end});
    auto sync_and_look = [this, &batch]() -> Result<> {
        WV_CHECK(batch.front()->tail->writer->sync());
        return repository_.require_writer();
    };
    auto synced = co_await run_on(pools_.tail, sync_and_look);
    note_sync(synced, start);
    co_return synced;
}

void WalPipeline::note_flushed(const std::vector<std::shared_ptr<Frame>>& batch) {
    // First what is waited for.
    progress_.set_flushed(Lsn{batch.back()->place.end});
    on_flushed_(progress_.flushed_lsn());
    double now = to_seconds(clock_.now());
    std::uint64_t stored = 0;
    WallTime newest{};
    for (const auto& frame : batch) {
        Tail& tail = *frame->tail;
        stored += frame->sealed.size();
        in_flight_bytes_ -= frame->plain.size();
        if (frame->place.kind == FrameKind::quiet) {
            tail.summary.set_covered_until_us(std::max<std::int64_t>(
                tail.summary.covered_until_us(), frame->quiet_until.time_since_epoch().count()));
        } else {
            pb::FrameEntry& entry = *tail.footer.add_frames();
            entry.set_frame_number(frame->place.frame_number);
            entry.set_offset(tail.end_offset);
            entry.set_stored_bytes(static_cast<std::uint32_t>(frame->sealed.size()));
            entry.set_plain_bytes(static_cast<std::uint32_t>(frame->plain.size()));
            entry.set_start_lsn(frame->place.start);
            entry.set_record_start_lsn(frame->notes.record_start_lsn.value);
            entry.set_tag(storage::tag_of(frame->sealed));
            for (pb::MarkEntry& mark : frame->notes.marks)
                *tail.footer.add_marks() = std::move(mark);
            storage::merge_summary(tail.summary, frame->notes.summary);
            if (frame->notes.summary.commit_count() > 0) {
                newest = std::max(newest, WallTime(Micros(frame->notes.summary.last_at_us())));
                metrics_.commit_durable_seconds.observe(std::max(
                    0.0, now - static_cast<double>(frame->notes.summary.first_at_us()) / 1e6));
            }
            *entry.mutable_summary() = std::move(frame->notes.summary);
        }
        tail.end_offset += frame->sealed.size();
        tail.end_lsn = Lsn{frame->place.end};
        ++tail.synced_frames;
        keep_spare(spare_, std::move(frame->plain));
        keep_spare(spare_sealed_, std::move(frame->sealed));
    }
    metrics_.store_written_bytes_total.add(static_cast<double>(stored));
    if (newest != WallTime{}) progress_.set_recoverable_until(newest);
    room_.notify();
}

// Asked when the last frame is cut and when it is synced, in either order and both while the other
// is waited for: closed once.
void WalPipeline::close_if_whole(const std::shared_ptr<Tail>& tail) {
    if (!tail->complete || tail->closing || tail->synced_frames != tail->cut_frames) return;
    tail->closing = true;
    tasks_.spawn(close_tail(tail));
}

Task<> WalPipeline::close_tail(std::shared_ptr<Tail> tail) {
    auto close = [this, tail]() -> Result<> {
        storage::Repository::TailContent content{.footer = std::move(tail->footer),
                                                 .frame_count = tail->cut_frames,
                                                 .end_lsn = tail->end_lsn,
                                                 .summary = tail->summary};
        return repository_.close_tail(std::move(tail->writer), std::move(content));
    };
    auto closed = co_await run_on(pools_.store, std::move(close));
    std::erase(tails_, tail);
    if (closed) {
        progress_.set_closed(tail->end_lsn);
    } else {
        metrics_.store_errors_total.at(StoreOperation::close).add();
        break_with(closed.error());
    }
}

Task<Result<>> WalPipeline::finish() {
    if (!running_) co_return Result<>();
    cut_frame();
    finishing_ = true;
    work_.notify();
    filled_.notify();
    // The flush timer and the writer end by themselves; closings of complete tails with them.
    failed_.notify();
    co_await tasks_.join();
    running_ = false;
    std::shared_ptr<Tail> last = std::move(cutting_);
    cutting_.reset();
    if (last && last->writer && !error_) {
        tasks_.spawn(close_tail(last));
        co_await tasks_.join();
    }
    queue_.clear();
    in_flight_bytes_ = 0;
    open_.clear();
    co_await drop_tails();
    if (error_) co_return fail(*error_);
    co_return Result<>();
}

// What broke is left to the repository to read back.
Task<> WalPipeline::drop_tails() {
    std::vector<std::shared_ptr<Tail>> tails = std::move(tails_);
    tails_.clear();
    auto drop = [this, tails]() -> Result<> {
        for (const auto& tail : tails)
            if (tail->writer) repository_.drop_tail(std::move(tail->writer));
        return {};
    };
    (void)co_await run_on(pools_.store, std::move(drop));
}

void WalPipeline::break_with(Error error) {
    if (error_) return;
    log::error("store.failed", error.message,
               {{"flushed_lsn", to_string(progress_.flushed_lsn())}});
    error_ = std::move(error);
    failed_.notify();
    work_.notify();
    filled_.notify();
    room_.notify();
}

}  // namespace walvault::agent
