#include "agent/capture.h"

#include <algorithm>
#include <utility>

#include "agent/primed_tracker.h"
#include "base/blocking.h"
#include "base/log.h"
#include "base/secret.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// A chain of forks and promotions is walked without waiting, but not for ever.
constexpr int kImmediateMax = 64;
constexpr std::chrono::milliseconds kGatherIntervalMax{10};
// An index or a ledger that met an I/O error takes no writes any more in this process.
constexpr int kStoreFailuresMax = 3;
constexpr std::chrono::seconds kLastedFor{10};
constexpr std::chrono::seconds kStoreMayHang{15};
// A shutdown waits as long for a copy that is away.
constexpr std::chrono::seconds kCopyMayLag{10};
// A server's own keepalive and its answer may come together. No commit takes this long to be
// flushed where the server's disk works.
constexpr std::chrono::milliseconds kProofAfter{500};

// What no retry mends: the operator has to decide. A server that was streamed from once may come
// back: its role, its pg_hba.conf or the server behind its address change under a running agent.
bool is_final(const Error& error, bool was_attached) {
    if (error.code == Errc::busy) return error.origin != Origin::server;  // another writer
    if (error.code == Errc::wrong_key) return true;
    return !was_attached && (error.code == Errc::refused || error.code == Errc::unsupported ||
                             error.code == Errc::invalid_argument);
}

DisconnectReason reason_of(Errc code) {
    switch (code) {
        case Errc::cancelled:
            return DisconnectReason::stopped;
        case Errc::corrupt:
            return DisconnectReason::not_contiguous;
        case Errc::gap:
        case Errc::unusable:
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
                 const ServerConfig& server, const RepoConfig& repo, AttachReceiver attach)
    : executor_(executor),
      pools_(pools),
      repository_(repository),
      progress_(progress),
      metrics_(metrics),
      clock_(clock),
      server_(server),
      attach_(std::move(attach)),
      pipeline_(executor, pools, repository, progress, metrics, clock,
                pipeline_options(server, repo), [this](Lsn) { acknowledge_at_once(); }),
      choice_(pools, repository, clock, server.slot),
      other_hosts_(pools, repository, pipeline_, progress, clock, attach_),
      missing_wal_(pools, repository, pipeline_, progress, metrics),
      backoff_(100ms, 10s, random_number()),
      stopped_(executor),
      tasks_(executor) {
    missing_wal_.configure(server);
    progress_.wait_for_copy(server.acknowledge == Acknowledge::offloaded);
}

void Capture::stop() {
    stopping_ = true;
    stopped_.notify();
    other_hosts_.cancel();
    missing_wal_.cancel();
    // A live stream ends by itself at the server's next answer, with everything flushed and
    // acknowledged.
    if (streaming_)
        tasks_.spawn(close_when_slow());
    else
        hangup_.hang_up();
}

void Capture::reconfigure(const ServerConfig& server, const RepoConfig& repo) {
    server_.flush_interval = server.flush_interval;
    server_.wal_fetch_timeout = server.wal_fetch_timeout;
    missing_wal_.configure(server);
    progress_.wait_for_copy(server.acknowledge == Acknowledge::offloaded);
    if (receiver_ && !synchronous_) receiver_->set_gather_interval(gather_interval(server));
    pipeline_.set_options(pipeline_options(server, repo));
}

void Capture::stay_away(bool away) {
    away_ = away;
    if (away && receiver_)
        receiver_->close();
    else
        stopped_.notify();
}

void Capture::set_synchronous(bool synchronous) {
    if (synchronous == synchronous_) return;
    synchronous_ = synchronous;
    log::info("stream.synchronous",
              synchronous ? "the server's commits wait for this agent: WAL is flushed as it comes"
                          : "the server's commits do not wait for this agent any more");
    pipeline_.set_flush_at_once(synchronous);
    if (receiver_)
        receiver_->set_gather_interval(synchronous ? std::chrono::milliseconds(0)
                                                   : gather_interval(server_));
}

Task<Result<>> Capture::run(bool until_caught_up) {
    until_caught_up_ = until_caught_up;
    int store_failures = 0;
    while (!stopping_) {
        if (away_) {
            co_await wait_for(stopped_, 1s);
            continue;
        }
        const Lsn flushed_before = progress_.flushed_lsn();
        const SteadyTime began = clock_.steady_now();
        Ended ended = co_await attach_and_stream();
        // A stream that breaks at its first write, as on a full disk, is none to begin anew at
        // once.
        if (progress_.flushed_lsn() != flushed_before || clock_.steady_now() - began > kLastedFor)
            backoff_.reset();
        Result<> streamed = std::move(ended.result);
        connected_ = false;
        metrics_.stream_connected.set(0);
        if (until_caught_up_ && goal_ && progress_.flushed_lsn() >= *goal_) break;
        if (stopping_) {
            metrics_.stream_disconnects_total.at(DisconnectReason::stopped).add();
            break;
        }
        if (!streamed) {
            note_disconnect(streamed.error());
            if (is_final(streamed.error(), attachment_count_ > 0)) co_return streamed;
            // What the server answers in between says nothing of the store.
            if (progress_.flushed_lsn() != flushed_before)
                store_failures = 0;
            else if (streamed.error().code == Errc::io)
                ++store_failures;
            // Only a new start opens them again: the supervisor's, after this exit.
            if (store_failures == kStoreFailuresMax) co_return streamed;
        }
        if (ended.again && ++immediate_ < kImmediateMax) continue;
        co_await wait_for(stopped_, backoff_.next());
    }
    co_return Result<>();
}

void Capture::note_disconnect(const Error& error) {
    const DisconnectReason reason = std::exchange(server_ended_, false)
                                        ? DisconnectReason::server_ended
                                        : reason_of(error.code);
    metrics_.stream_disconnects_total.at(reason).add();
    if (error.message != last_error_)
        log::warn("stream.lost", error.message,
                  {{"hint", error.hint}, {"flushed_lsn", to_string(progress_.flushed_lsn())}});
    last_error_ = error.message;
    last_failure_ = error;
}

// What this attachment showed decides what the next one does; then it need not wait.
bool Capture::note_what_was_learned(const Error& error) {
    if (!start_) return false;
    switch (error.code) {
        case Errc::gap:
            choice_.note_missing_wal(*start_, error.message);
            return true;
        case Errc::unusable:
            choice_.note_unusable_slot();
            return true;
        case Errc::forked:
            return true;
        default:
            return timeline_ended_;
    }
}

Task<Capture::Ended> Capture::attach_and_stream() {
    start_.reset();
    comparison_.reset();
    timeline_ended_ = false;
    Ended ended;
    auto start = co_await attach();
    if (!start) {
        ended.result = fail(start.error());
        co_return ended;
    }
    if (away_) receiver_->close();
    if (stopping_ || away_) co_return ended;
    start_ = std::move(*start);
    if (start_->fetch) co_return co_await fetch_missing();
    ended.result = co_await begin(*start_);
    if (ended.result) ended.result = co_await stream();
    if (!ended.result) ended.again = note_what_was_learned(ended.result.error());
    if (receiver_) receiver_->close();
    co_return ended;
}

// The server is not kept waiting meanwhile: the slot holds what comes behind.
Task<Capture::Ended> Capture::fetch_missing() {
    receiver_->close();
    Ended ended;
    ended.result = co_await fetch_from_elsewhere();
    ended.again = choice_.note_fetched(*start_, ended.result);
    // What is settled is no failure of this attachment: the next one enters the gap.
    if (ended.again) ended.result = Result<>();
    co_return ended;
}

// From another host first: it is known to be of this cluster, and nobody has to have set it up.
Task<Result<>> Capture::fetch_from_elsewhere() {
    Result<> from_hosts = fail(Errc::not_found, "");
    if (other_hosts_.is_there()) {
        from_hosts = co_await other_hosts_.fetch(*start_, *cluster_);
        const bool is_answer = !from_hosts && (from_hosts.error().code == Errc::not_found ||
                                               from_hosts.error().code == Errc::unavailable);
        const bool took_some = progress_.flushed_lsn() > start_->history.end_lsn;
        if (!is_answer || took_some || !missing_wal_.is_configured()) co_return from_hosts;
    }
    auto fetched = co_await missing_wal_.fetch(*start_, *cluster_);
    if (fetched || from_hosts.error().message.empty()) co_return fetched;
    // A host that is down may come back with it.
    if (fetched.error().code == Errc::not_found && from_hosts.error().code == Errc::unavailable)
        co_return from_hosts;
    fetched.error().message += "; " + from_hosts.error().message;
    co_return fetched;
}

Task<Result<StreamStart>> Capture::attach() {
    wal::Receiver::Options options;
    options.conninfo = server_.conninfo;
    options.slot = server_.slot;
    if (!synchronous_) options.gather_interval = gather_interval(server_);
    options.hangup = hangup_;
    WV_CO_TRY(receiver_, co_await attach_(std::move(options), clock_));
    if (stopping_) co_return StreamStart{};
    identity_ = receiver_->identity();
    storage::ClusterRecord wanted;
    wanted.name = server_.name;
    wanted.system_identifier = identity_->system.system_identifier;
    wanted.segment_bytes = identity_->segment_bytes;
    wanted.server_version_num = static_cast<unsigned>(identity_->server_version_num);
    auto settle_cluster = [this, wanted]() -> Result<storage::ClusterRecord> {
        // Who was taken over while it waited for the server would go on waiting for ever.
        WV_CHECK(repository_.require_writer());
        // A tail that broke is read back before anything continues it.
        WV_CHECK(repository_.recover_tails());
        return repository_.ensure_cluster(wanted);
    };
    WV_CO_TRY(cluster_, co_await run_on(pools_.store, std::move(settle_cluster)));
    metrics_.set_server_info(std::to_string(wanted.system_identifier),
                             std::to_string(identity_->server_version_num));
    other_hosts_.set_servers(server_.conninfo, identity_->address);
    choice_.set_fetching(missing_wal_.is_configured() || other_hosts_.is_there(),
                         server_.wal_fetch_timeout);
    co_return co_await choice_.choose(*receiver_, *cluster_);
}

Task<Result<>> Capture::begin(const StreamStart& start) {
    metrics_.server_timeline.set(start.timeline);
    progress_.reset(start.history, start.history.end_lsn);
    if (!goal_) goal_ = identity_->system.flushed_lsn;
    WV_CO_TRY(storage::WalTracker tracker,
              co_await primed_tracker(pools_, repository_, *cluster_, start.history));
    comparison_.emplace(pools_, repository_, start.history, start.from_lsn);
    WV_CO_CHECK(co_await receiver_->start(start.from_lsn, start.timeline));
    connected_ = true;
    ++attachment_count_;
    metrics_.stream_connected.set(1);
    metrics_.stream_connects_total.add();
    log::info("stream.started", "streaming WAL",
              {{"from_lsn", to_string(start.history.end_lsn)},
               {"compared_from", to_string(start.from_lsn)},
               {"history", to_hex(start.history.id).substr(0, 8)},
               {"timeline", start.timeline}});
    pipeline_.begin(start.history, *cluster_, std::move(tracker));
    streaming_ = true;
    last_error_.clear();
    last_failure_.reset();
    if (comparison_->is_complete()) note_same_history();
    co_return Result<>();
}

// From here on this server is told what is stored.
void Capture::note_same_history() {
    choice_.note_followed();
    immediate_ = 0;
    awaited_lsn_ = {};
    tasks_.spawn(acknowledge());
}

Task<Result<>> Capture::stream() {
    tasks_.spawn(close_when_broken());
    Result<> ended;
    receiving_ = true;
    while (ended && !stopping_) {
        auto here = receiver_->poll();
        // The next commits are waited for with all else on the loop: to look for them at once found
        // few, and each sync would be for fewer.
        if (here && !*here && !pipeline_.flush_here()) co_await pipeline_.end_flush_here();
        auto event = Result<wal::StreamEvent>(wal::ServerPosition());
        if (!here)
            event = fail(here.error());
        else if (*here)
            event = std::move(**here);
        else
            event = co_await receiver_->next();
        if (!event) {
            ended = fail(event.error());
        } else if (auto* slice = std::get_if<wal::WalSlice>(&*event)) {
            if (comparison_->is_complete() && pipeline_.has_room())
                ended = take_slice_here(*slice);
            else
                ended = co_await take_slice(*slice);
        } else if (auto* position = std::get_if<wal::ServerPosition>(&*event)) {
            ended = take_position(*position);
        } else {
            ended = take_end(std::get<wal::StreamEnded>(*event));
        }
        if (until_caught_up_ && goal_ && progress_.received_lsn() >= *goal_) break;
    }
    receiving_ = false;
    if (!ended && nothing_continues(ended.error())) {
        choice_.note_difference(*start_, start_->history.end_lsn);
        ended = fail(Errc::forked,
                     "the server's WAL does not continue what is stored: " + ended.error().message);
    }
    if (pipeline_.error()) ended = fail(*pipeline_.error());
    auto finished = co_await pipeline_.finish();
    if (!finished) ended = finished;
    streaming_ = false;
    pipeline_.failed().notify();
    co_await tasks_.join();
    // Everything received is flushed now: say so, and go.
    if (finished && comparison_->is_complete()) {
        progress_.set_acknowledged(progress_.acknowledgeable_lsn());
        auto said = co_await receiver_->acknowledge(progress_.acknowledged_lsn(), true);
        if (said) co_await receiver_->stop();
    }
    receiver_->close();
    co_return ended;
}

Result<> Capture::take_end(const wal::StreamEnded& end) {
    timeline_ended_ = end.next.has_value();
    server_ended_ = !timeline_ended_;
    std::string message = end.next ? "timeline " + std::to_string(start_->timeline) + " ended at " +
                                         to_string(end.next->next_start_lsn) + "; timeline " +
                                         std::to_string(end.next->next_timeline) + " continues it"
                                   : "the server shut down cleanly";
    return fail(Error{Errc::unavailable, std::move(message), "", Origin::server});
}

// Where nothing could be compared, the first record tells: it names the position of the one before
// it. Once may be an accident of the way here.
bool Capture::nothing_continues(const Error& error) {
    const bool compared = start_->from_lsn < start_->history.end_lsn;
    if (error.code != Errc::corrupt || compared ||
        progress_.received_lsn() != start_->history.end_lsn)
        return false;
    return ++broken_starts_ % 2 == 0;
}

void Capture::note_received(const wal::WalSlice& slice) {
    last_position_.reset();
    progress_.set_upstream(slice.server_end_lsn, clock_.steady_now());
    metrics_.stream_received_bytes_total.add(static_cast<double>(slice.wal.size()));
    metrics_.stream_last_message_timestamp_seconds.set(to_seconds(clock_.now()));
}

// What is stored was only compared.
ByteSpan Capture::not_stored(const wal::WalSlice& slice) const {
    const Lsn have = progress_.received_lsn();
    const Lsn end = slice.start_lsn + slice.wal.size();
    return end <= have ? ByteSpan() : slice.wal.subspan(have - slice.start_lsn);
}

Result<> Capture::take_slice_here(const wal::WalSlice& slice) {
    note_received(slice);
    return pipeline_.append_here(not_stored(slice));
}

Task<Result<>> Capture::take_slice(const wal::WalSlice& slice) {
    note_received(slice);
    if (!comparison_->is_complete()) {
        WV_CO_TRY(auto differs, co_await comparison_->take(slice.wal));
        if (differs) {
            choice_.note_difference(*start_, *differs);
            co_return fail(Errc::forked, "the server's WAL near " + to_string(*differs) +
                                             " is not the WAL that is stored there");
        }
        if (comparison_->is_complete()) note_same_history();
    }
    const ByteSpan wal = not_stored(slice);
    if (wal.empty()) co_return Result<>();
    co_return co_await pipeline_.append(wal);
}

Result<> Capture::take_position(const wal::ServerPosition& position) {
    progress_.set_upstream(position.server_end_lsn, clock_.steady_now());
    metrics_.clock_offset_seconds.set(to_seconds(position.sent_at) - to_seconds(clock_.now()));
    metrics_.stream_last_message_timestamp_seconds.set(to_seconds(clock_.now()));
    const Lsn compared = comparison_->next_lsn();
    if (start_->behind && !comparison_->is_complete() &&
        position.server_end_lsn >= identity_->system.flushed_lsn &&
        position.server_end_lsn <= compared) {
        choice_.note_difference(*start_, compared);
        return fail(Errc::forked, "the server has WAL up to " + to_string(compared) +
                                      ", behind the " + to_string(start_->history.end_lsn) +
                                      " that is stored: it was rolled back");
    }
    // A server that may turn out to be another one proves nothing, nor does a standby, which may be
    // cut off from what commits elsewhere.
    if (!comparison_->is_complete() || identity_->in_recovery) return {};
    // A commit may be stamped before this and sent after it; only a second answer that names the
    // same position proves the first, and not one that comes while the same commit is on its way to
    // the server's disk.
    if (last_position_ && last_position_->server_end_lsn == position.server_end_lsn &&
        last_position_->sent_at <= position.sent_at) {
        if (position.sent_at - last_position_->sent_at < kProofAfter) return {};
        pipeline_.note_quiet(position.server_end_lsn, last_position_->sent_at);
    }
    last_position_ = position;
    return {};
}

void Capture::acknowledge_at_once() {
    if (!streaming_ || pipeline_.error() || !comparison_->is_complete()) return;
    progress_.set_acknowledged(progress_.acknowledgeable_lsn());
    if (!receiver_->acknowledge_at_once(progress_.acknowledged_lsn())) tasks_.spawn(acknowledge());
}

Task<> Capture::acknowledge() {
    if (!streaming_ || pipeline_.error() || !comparison_->is_complete()) co_return;
    progress_.set_acknowledged(progress_.acknowledgeable_lsn());
    // A lost connection is seen by whoever reads from it.
    (void)co_await receiver_->acknowledge(progress_.acknowledged_lsn(), true);
}

void Capture::note_offloaded(const Id16& history, Lsn lsn) {
    progress_.set_offloaded(history, lsn);
    if (server_.acknowledge == Acknowledge::offloaded) acknowledge_at_once();
}

// A server that shuts down waits until this agent has said that it has everything, and goes on
// waiting while it is answered.
bool Capture::copy_is_late() {
    if (progress_.acknowledgeable_lsn() >= awaited_lsn_) {
        awaited_lsn_ = progress_.flushed_lsn();
        awaited_since_ = clock_.steady_now();
    }
    return clock_.steady_now() - awaited_since_ > kCopyMayLag;
}

Task<> Capture::close_when_slow() {
    SteadyTime deadline = clock_.steady_now() + 2s;
    while (receiving_ && clock_.steady_now() < deadline)
        co_await wait_for(pipeline_.failed(), 500ms);
    // What was received is still to be flushed and acknowledged, however long that takes.
    if (receiving_) receiver_->close();
}

// An agent that answers keepalives with an old position would keep the server from shutting down.
Task<> Capture::close_when_broken() {
    while (streaming_ && !pipeline_.error()) {
        // A disk that hangs says no error, and a server that shuts down waits for what it holds
        // back.
        if (pipeline_.unflushed_for() > kStoreMayHang) {
            log::error(
                "store.hangs", "a write to the repository does not end: leaving the server",
                {{"seconds", std::chrono::duration<double>(pipeline_.unflushed_for()).count()}});
            break;
        }
        if (comparison_->is_complete() && copy_is_late()) {
            log::warn(
                "stream.copy_late",
                "no copy has taken what was flushed: leaving the server for a moment, so that "
                "it can shut down",
                {{"flushed_lsn", to_string(progress_.flushed_lsn())},
                 {"offloaded_lsn", to_string(progress_.offloaded_lsn())}});
            break;
        }
        co_await wait_for(pipeline_.failed(), 1s);
    }
    if (streaming_ && receiver_) receiver_->close();
}

}  // namespace walvault::agent
