#include "agent/capture.h"

#include <algorithm>
#include <random>

#include "base/blocking.h"
#include "base/log.h"
#include "proto/server_version.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kCompareStepBytes = 1 << 20;
constexpr std::chrono::milliseconds kGatherIntervalMax{10};
// An index or a ledger that met an I/O error takes no writes any more in this process.
constexpr int kStoreFailuresMax = 3;

// What no retry mends: the operator has to decide.
bool is_final(Errc code) {
    return code == Errc::refused || code == Errc::forked || code == Errc::unsupported ||
           code == Errc::invalid_argument || code == Errc::wrong_key;
}

DisconnectReason reason_of(Errc code) {
    switch (code) {
        case Errc::cancelled:
            return DisconnectReason::stopped;
        case Errc::corrupt:
            return DisconnectReason::not_contiguous;
        case Errc::gap:
            return DisconnectReason::gap;
        case Errc::forked:
            return DisconnectReason::fork;
        case Errc::io:
        case Errc::no_space:
            return DisconnectReason::store;
        default:
            return DisconnectReason::connection_lost;
    }
}

std::chrono::milliseconds gather_interval(const ServerConfig& server) {
    return std::min(kGatherIntervalMax, server.flush_interval / 10);
}

WalPipeline::Options pipeline_options(const ServerConfig& server, const RepoConfig& repo) {
    return {.flush_interval = server.flush_interval,
            .pack_bytes = repo.pack_bytes,
            .level = repo.wal_level};
}

}  // namespace

Capture::Capture(asio::any_io_executor executor, Pools& pools, storage::Repository& repository,
                 Progress& progress, AgentMetrics& metrics, const Clock& clock,
                 const ServerConfig& server, const RepoConfig& repo)
    : executor_(executor),
      pools_(pools),
      repository_(repository),
      progress_(progress),
      metrics_(metrics),
      clock_(clock),
      server_(server),
      pipeline_(executor, pools, repository, progress, metrics, clock,
                pipeline_options(server, repo),
                [this](Lsn flushed) { tasks_.spawn(acknowledge(flushed)); }),
      backoff_(100ms, 10s, std::random_device{}()),
      stopped_(executor),
      tasks_(executor) {}

void Capture::stop() {
    stopping_ = true;
    stopped_.notify();
    // A live stream ends by itself at the server's next answer, with everything flushed and
    // acknowledged.
    if (streaming_)
        tasks_.spawn(close_when_slow());
    else
        hangup_.hang_up();
}

void Capture::reconfigure(const ServerConfig& server, const RepoConfig& repo) {
    server_.flush_interval = server.flush_interval;
    if (receiver_) receiver_->set_gather_interval(gather_interval(server));
    pipeline_.set_options(pipeline_options(server, repo));
}

Task<Result<>> Capture::run(bool until_caught_up) {
    until_caught_up_ = until_caught_up;
    int store_failures = 0;
    while (!stopping_) {
        const Lsn flushed_before = progress_.flushed_lsn();
        auto streamed = co_await attach_and_stream();
        connected_ = false;
        metrics_.stream_connected.set(0);
        if (until_caught_up_ && goal_ && progress_.flushed_lsn() >= *goal_) break;
        if (stopping_) break;
        if (!streamed) {
            note_disconnect(streamed.error());
            if (is_final(streamed.error().code)) co_return streamed;
            const bool stuck =
                streamed.error().code == Errc::io && progress_.flushed_lsn() == flushed_before;
            store_failures = stuck ? store_failures + 1 : 0;
            // Only a new start opens them again: the supervisor's, after this exit.
            if (store_failures == kStoreFailuresMax) co_return streamed;
        }
        co_await wait_for(stopped_, backoff_.next());
    }
    co_return Result<>();
}

void Capture::note_disconnect(const Error& error) {
    metrics_.stream_disconnects_total.at(reason_of(error.code)).add();
    if (error.message != last_error_)
        log::warn("stream.lost", error.message,
                  {{"hint", error.hint}, {"flushed_lsn", to_string(progress_.flushed_lsn())}});
    last_error_ = error.message;
    last_failure_ = error;
    gap_at_.reset();
    if (error.code == Errc::gap) gap_at_ = progress_.flushed_lsn();
}

Task<Result<>> Capture::attach_and_stream() {
    wal::Receiver::Options options;
    options.conninfo = server_.conninfo;
    options.slot = server_.slot;
    options.gather_interval = gather_interval(server_);
    options.hangup = hangup_;
    WV_CO_TRY(receiver_, co_await wal::Receiver::attach(std::move(options), clock_));
    if (stopping_) co_return Result<>();
    identity_ = receiver_->identity();
    storage::ClusterRecord wanted;
    wanted.name = server_.name;
    wanted.system_identifier = identity_->system.system_identifier;
    wanted.segment_bytes = identity_->segment_bytes;
    wanted.server_version_num = static_cast<unsigned>(identity_->server_version_num);
    auto settle_cluster = [this, wanted]() -> Result<storage::ClusterRecord> {
        // A tail that broke is read back before anything continues it.
        WV_CHECK(repository_.recover_tails());
        return repository_.ensure_cluster(wanted);
    };
    WV_CO_TRY(cluster_, co_await run_on(pools_.store, std::move(settle_cluster)));
    metrics_.set_server_info(std::to_string(wanted.system_identifier),
                             std::to_string(identity_->server_version_num));
    WV_CO_TRY(wal::SlotPosition slot, co_await receiver_->ensure_slot());
    WV_CO_TRY(storage::HistoryRecord history, co_await settle_history(slot));
    metrics_.server_timeline.set(history.timeline);
    progress_.reset(history, history.end_lsn);
    if (!goal_) goal_ = identity_->system.flushed_lsn;
    WV_CO_TRY(storage::WalTracker tracker, co_await primed_tracker(history));

    Lsn from = history.end_lsn.round_down(cluster_->segment_bytes);
    from = std::max(from, history.start_lsn);
    WV_CO_CHECK(co_await receiver_->start(from, history.timeline));
    connected_ = true;
    metrics_.stream_connected.set(1);
    metrics_.stream_connects_total.add();
    auto compared = co_await compare_overlap(history, from);
    if (!compared) {
        receiver_->close();
        co_return compared;
    }
    log::info("stream.started", "streaming WAL",
              {{"from_lsn", to_string(history.end_lsn)}, {"timeline", history.timeline}});
    pipeline_.begin(history, *cluster_, std::move(tracker));
    last_error_.clear();
    last_failure_.reset();
    gap_at_.reset();
    co_return co_await stream();
}

Task<Result<storage::HistoryRecord>> Capture::settle_history(const wal::SlotPosition& slot) {
    auto current = [this, name = cluster_->name] { return repository_.current_history(name); };
    WV_CO_TRY(auto known, co_await run_on(pools_.store, current));
    if (!known) {
        // The server keeps WAL from here on; the segment's first page must be there for a restore.
        Lsn start = slot.restart_lsn.value_or(identity_->system.flushed_lsn)
                        .round_down(cluster_->segment_bytes);
        auto open = [this, start] {
            return repository_.open_history(cluster_->name, identity_->system.timeline, start,
                                            "first attachment");
        };
        WV_CO_TRY(Id16 id, co_await run_on(pools_.store, std::move(open)));
        log::info("history.opened", "a new history begins",
                  {{"history", to_hex(id)},
                   {"timeline", identity_->system.timeline},
                   {"start_lsn", to_string(start)}});
        WV_CO_TRY(known, co_await run_on(pools_.store, current));
    }
    if (known->timeline != identity_->system.timeline)
        co_return fail(
            Errc::unsupported,
            "the server is on timeline " + std::to_string(identity_->system.timeline) +
                ", what is stored is timeline " + std::to_string(known->timeline) +
                ": it was promoted or restored, and this version does not follow a switch",
            "keep this repository for what it holds, and protect the new timeline in a new one");
    WV_CO_CHECK(co_await store_timeline_histories(*known));
    co_return *known;
}

Task<Result<>> Capture::store_timeline_histories(const storage::HistoryRecord& history) {
    if (history.timeline < 2) co_return Result<>();
    WV_CO_TRY(std::string content, co_await receiver_->timeline_history(history.timeline));
    auto record = [this, history, content] {
        return repository_.record_timeline_history(cluster_->name, history.id, history.timeline,
                                                   content);
    };
    co_return co_await run_on(pools_.store, std::move(record));
}

// The record that the stream continues may have begun long before: decoding starts where it did.
Task<Result<storage::WalTracker>> Capture::primed_tracker(const storage::HistoryRecord& history) {
    auto prime = [this, history]() -> Result<storage::WalTracker> {
        WV_TRY(Lsn from, repository_.wal().decode_start(history.id, history.end_lsn));
        from = std::max(from, history.start_lsn);
        WalDecoderOptions options{.server_major = server_major_of(cluster_->server_version_num),
                                  .system_identifier = cluster_->system_identifier,
                                  .segment_bytes = cluster_->segment_bytes,
                                  .timeline = history.timeline};
        WV_TRY(std::int64_t largest, repository_.wal().largest_at_us(history.id));
        WV_TRY(storage::WalTracker tracker, storage::WalTracker::open(options, from, largest));
        WV_CHECK(repository_.wal().read(history.id, from, history.end_lsn,
                                        [&](ByteSpan wal) { return tracker.prime(wal); }));
        return tracker;
    };
    co_return co_await run_on(pools_.store, std::move(prime));
}

// The server streams the segment again from its start: every byte must be the one that is stored,
// or this is not the history that was followed (a rolled-back disk, another clone).
Task<Result<>> Capture::compare_overlap(const storage::HistoryRecord& history, Lsn from) {
    overlap_.clear();
    Lsn at = from;
    Lsn end = history.end_lsn;
    ByteBuffer stored;
    Lsn stored_start = from;
    while (at < end) {
        WV_CO_TRY(wal::StreamEvent event, co_await receiver_->next());
        if (std::holds_alternative<wal::StreamEnded>(event))
            co_return fail(Errc::unavailable,
                           "the server ended the stream while it was compared with what is stored");
        auto* slice = std::get_if<wal::WalSlice>(&event);
        if (slice == nullptr) continue;
        ByteSpan received = slice->wal;
        while (!received.empty() && at < end) {
            if (at >= stored_start + stored.size()) {
                Lsn to = std::min(at + kCompareStepBytes, end);
                auto read = [this, id = history.id, at, to]() -> Result<ByteBuffer> {
                    ByteBuffer bytes;
                    WV_CHECK(repository_.wal().read(id, at, to, [&](ByteSpan wal) -> Result<> {
                        walvault::append(bytes, wal);
                        return {};
                    }));
                    return bytes;
                };
                WV_CO_TRY(stored, co_await run_on(pools_.store, std::move(read)));
                stored_start = at;
            }
            ByteSpan ours = ByteSpan(stored).subspan(at - stored_start);
            std::size_t count = std::min(ours.size(), received.size());
            if (!std::equal(ours.begin(), ours.begin() + static_cast<std::ptrdiff_t>(count),
                            received.begin()))
                co_return fail(Errc::forked,
                               "the server's WAL near " + to_string(at) +
                                   " is not the WAL that is stored there",
                               "its disk was rolled back, or another server answers: nothing was "
                               "overwritten and "
                               "nothing is acknowledged; find out which server this is");
            at = at + count;
            received = received.subspan(count);
        }
        overlap_.assign(received.begin(), received.end());  // what of this message is new
    }
    co_return Result<>();
}

Task<Result<>> Capture::stream() {
    streaming_ = true;
    tasks_.spawn(close_when_broken());
    Result<> ended;
    if (!overlap_.empty()) ended = co_await pipeline_.append(overlap_);
    overlap_.clear();
    if (ended) backoff_.reset();
    while (ended && !stopping_) {
        auto event = co_await receiver_->next();
        if (!event) {
            ended = fail(event.error());
        } else if (auto* slice = std::get_if<wal::WalSlice>(&*event)) {
            ended = co_await take_slice(*slice);
        } else if (auto* position = std::get_if<wal::ServerPosition>(&*event)) {
            progress_.set_upstream(position->server_end_lsn);
            metrics_.clock_offset_seconds.set(to_seconds(position->sent_at) -
                                              to_seconds(clock_.now()));
            metrics_.stream_last_message_timestamp_seconds.set(to_seconds(clock_.now()));
            // A commit may be stamped before this and sent after it; only a second answer that
            // names the same position proves the first.
            if (last_position_ && last_position_->server_end_lsn == position->server_end_lsn)
                pipeline_.note_quiet(position->server_end_lsn, last_position_->sent_at);
            last_position_ = *position;
        } else if (std::get<wal::StreamEnded>(*event).next) {
            ended =
                fail(Errc::unsupported,
                     "the server switched to another timeline, which this version does not follow",
                     "what was streamed is flushed and restorable");
        } else {
            ended = fail(
                Error{Errc::unavailable, "the server shut down cleanly", "", Origin::server});
        }
        if (until_caught_up_ && goal_ && progress_.received_lsn() >= *goal_) break;
    }
    if (pipeline_.error()) ended = fail(*pipeline_.error());
    auto finished = co_await pipeline_.finish();
    if (!finished) ended = finished;
    streaming_ = false;
    pipeline_.failed().notify();
    co_await tasks_.join();
    // Everything received is flushed now: say so, and go.
    if (finished) {
        progress_.set_acknowledged(progress_.flushed_lsn());
        auto said = co_await receiver_->acknowledge(progress_.flushed_lsn(), true);
        if (said) co_await receiver_->stop();
    }
    receiver_->close();
    co_return ended;
}

Task<Result<>> Capture::take_slice(const wal::WalSlice& slice) {
    last_position_.reset();
    progress_.set_upstream(slice.server_end_lsn);
    metrics_.stream_received_bytes_total.add(static_cast<double>(slice.wal.size()));
    auto taken = co_await pipeline_.append(slice.wal);
    metrics_.stream_last_message_timestamp_seconds.set(to_seconds(clock_.now()));
    co_return taken;
}

Task<> Capture::acknowledge(Lsn flushed) {
    if (!streaming_ || pipeline_.error()) co_return;
    progress_.set_acknowledged(flushed);
    // A lost connection is seen by whoever reads from it.
    (void)co_await receiver_->acknowledge(flushed, true);
}

Task<> Capture::close_when_slow() {
    SteadyTime deadline = clock_.steady_now() + 2s;
    while (streaming_ && clock_.steady_now() < deadline)
        co_await wait_for(pipeline_.failed(), 500ms);
    if (streaming_) receiver_->close();
}

// An agent that answers keepalives with an old position would keep the server from shutting down.
Task<> Capture::close_when_broken() {
    while (streaming_ && !pipeline_.error())
        co_await wait_for(pipeline_.failed(), 1s);
    if (pipeline_.error() && receiver_) receiver_->close();
}

}  // namespace walvault::agent
