#include "agent/other_hosts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/primed_tracker.h"
#include "agent/wal_comparison.h"
#include "base/log.h"
#include "wal/conninfo.h"

namespace walvault::agent {
namespace {
constexpr std::chrono::seconds kPatience{30};
}  // namespace

struct OtherHosts::Run {
    const StreamStart& start;
    const storage::ClusterRecord& cluster;
    storage::WalTracker trial;  // sees WAL before the pipeline does, which must not meet any other
    std::optional<WalComparison> comparison;
    std::optional<Error> unavailable;
    std::string answers;  // of those that do not have it
};

void OtherHosts::set_servers(const std::string& conninfo, const wal::ServerAddress& streamed) {
    conninfo_ = conninfo;
    others_.clear();
    wal::Connection::Options options;
    options.conninfo = conninfo;
    auto settings = wal::connect_settings(options);
    if (!settings) return;
    for (const wal::ServerAddress& server : wal::servers_of(*settings))
        if (!wal::same_server(server, streamed)) others_.push_back(server);
}

Task<Result<>> OtherHosts::fetch(const StreamStart& start, const storage::ClusterRecord& cluster) {
    WV_CO_TRY(storage::WalTracker tracker,
              co_await primed_tracker(pools_, repository_, cluster, start.history));
    WV_CO_TRY(storage::WalTracker trial,
              co_await primed_tracker(pools_, repository_, cluster, start.history));
    Run run{.start = start,
            .cluster = cluster,
            .trial = std::move(trial),
            .comparison = {},
            .unavailable = {},
            .answers = {}};
    progress_.reset(start.history, start.history.end_lsn);
    pipeline_.begin(start.history, cluster, std::move(tracker));
    auto taken = co_await ask_all(run);
    auto finished = co_await pipeline_.finish();
    if (!finished) co_return finished;
    co_return taken;
}

// The next server is asked only where the one before gave nothing: otherwise the next attachment
// decides anew, from a later position.
Task<Result<>> OtherHosts::ask_all(Run& run) {
    for (const wal::ServerAddress& server : others_) {
        const std::string name = wal::to_string(server);
        if (refused_.contains(name)) continue;
        auto taken = co_await ask(run, server);
        if (pipeline_.error()) co_return fail(*pipeline_.error());
        if (cancelled_) co_return fail(Errc::cancelled, "the agent is stopping");
        const Lsn reached = progress_.received_lsn();
        if (reached > run.start.history.end_lsn)
            log::info("wal.from_another_host",
                      "WAL that the server has removed came from another of its hosts",
                      {{"host", name},
                       {"from_lsn", to_string(run.start.history.end_lsn)},
                       {"to_lsn", to_string(reached)}});
        if (taken) co_return taken;
        // Tried again every few seconds while it may come back: said once.
        if (std::exchange(said_[name], taken.error().message) != taken.error().message)
            log::warn("wal.not_on_other_host", taken.error().message, {{"host", name}});
        // The trial may have seen what the pipeline has not: the next attachment asks the others.
        const bool is_refused = taken.error().code == Errc::refused;
        if (is_refused) refused_.insert(name);
        if (is_refused || reached > run.start.history.end_lsn)
            co_return fail(Errc::unavailable, name + ": " + taken.error().message);
        if (taken.error().code == Errc::not_found)
            run.answers += (run.answers.empty() ? "" : "; ") + name + ": " + taken.error().message;
        else
            run.unavailable = taken.error();
    }
    if (run.unavailable) {
        run.unavailable->code = Errc::unavailable;
        co_return fail(*run.unavailable);
    }
    co_return fail(Errc::not_found,
                   "no other host has it" + (run.answers.empty() ? "" : " (" + run.answers + ")"));
}

Task<Result<>> OtherHosts::ask(Run& run, const wal::ServerAddress& server) {
    if (cancelled_) co_return fail(Errc::cancelled, "the agent is stopping");
    hangup_ = wal::Hangup();
    wal::Silence silence(co_await asio::this_coro::executor, hangup_, kPatience);
    auto done = co_await ask_patiently(run, server, silence);
    if (!done && hangup_.hung_up() && !cancelled_)
        co_return fail(Errc::unavailable,
                       fmt::format("it has said nothing for {} s", kPatience.count()));
    co_return done;
}

Task<Result<>> OtherHosts::ask_patiently(Run& run, const wal::ServerAddress& server,
                                         wal::Silence& silence) {
    wal::Receiver::Options options;
    options.conninfo = conninfo_;
    options.only = server;
    options.application_name = "walvault fetch";
    options.hangup = hangup_;
    WV_CO_TRY(auto receiver, co_await attach_(std::move(options), clock_));
    silence.broken();
    const wal::ServerIdentity& identity = receiver->identity();
    if (identity.system.system_identifier != run.cluster.system_identifier ||
        identity.segment_bytes != run.cluster.segment_bytes)
        co_return fail(Errc::refused, "it is another cluster");
    run.comparison.emplace(pools_, repository_, run.start.history, run.start.from_lsn);
    auto done = co_await receiver->start(run.start.from_lsn, run.start.timeline);
    if (done) done = co_await stream(run, *receiver, silence);
    receiver->close();
    if (!done && (done.error().code == Errc::gap || done.error().code == Errc::forked))
        co_return fail(Errc::not_found, done.error().message);
    co_return done;
}

Task<Result<>> OtherHosts::stream(Run& run, wal::Receiver& receiver, wal::Silence& silence) {
    const Lsn goal = run.start.fetch->to;
    auto has_less = [&](Lsn end) {
        return fail(Errc::not_found,
                    fmt::format("its WAL ends at {}, before {}", to_string(end), to_string(goal)));
    };
    // One answer may cross WAL that is on its way; more, a second apart each, do not.
    constexpr int kIdleAnswers = 3;
    int idle = 0;
    while (progress_.received_lsn() < goal) {
        WV_CO_TRY(wal::StreamEvent event, co_await receiver.next());
        silence.broken();
        if (auto* slice = std::get_if<wal::WalSlice>(&event)) {
            idle = 0;
            WV_CO_CHECK(co_await take(run, *slice));
        } else if (auto* position = std::get_if<wal::ServerPosition>(&event)) {
            if (position->server_end_lsn < goal && ++idle >= kIdleAnswers)
                co_return has_less(position->server_end_lsn);
        } else if (progress_.received_lsn() < goal) {
            co_return has_less(progress_.received_lsn());
        }
    }
    co_return Result<>();
}

Task<Result<>> OtherHosts::take(Run& run, const wal::WalSlice& slice) {
    ByteSpan wal = slice.wal.first(std::min<std::uint64_t>(
        slice.wal.size(), run.start.fetch->to - std::min(slice.start_lsn, run.start.fetch->to)));
    if (!run.comparison->is_complete()) {
        WV_CO_TRY(auto differs, co_await run.comparison->take(wal));
        if (differs)
            co_return fail(Errc::refused,
                           "its WAL near " + to_string(*differs) + " is not what is stored there");
    }
    const Lsn have = progress_.received_lsn();
    if (slice.start_lsn + wal.size() <= have) co_return Result<>();
    wal = wal.subspan(have - slice.start_lsn);
    auto fed = run.trial.feed(wal);
    (void)run.trial.take_frame();
    if (!fed)
        co_return fail(Errc::refused,
                       "its WAL does not continue what is stored: " + fed.error().message);
    co_return co_await pipeline_.append(wal);
}

}  // namespace walvault::agent
