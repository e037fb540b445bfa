#include "agent/agent.h"

#include <unistd.h>

#include <csignal>

#include "agent/agent_state.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/slot_guard.h"
#include "agent/version.h"
#include "base/blocking.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// What is told at the start, without row journals: bench/README.md has what was measured.
constexpr unsigned kMemoryMib = 64;
constexpr unsigned kLaneMemoryMib = 2;

std::string host_name() {
    char name[256] = {};
    return ::gethostname(name, sizeof name - 1) == 0 ? name : "?";
}

// The repository belongs to its pool.
Task<> set_wal_level(AgentState& state, int level) {
    auto set = [&state, level]() -> Result<> {
        state.repository->set_wal_level(level);
        return {};
    };
    (void)co_await run_on(state.pools.store, std::move(set));
}

// The keys that a reload changed and that what runs hangs on.
std::string keys_for_a_restart(const AgentState& state, const Config& loaded,
                               const ServerConfig& server) {
    std::string keys;
    auto note = [&keys](bool changed, std::string_view key) {
        if (changed) keys += (keys.empty() ? "" : ", ") + std::string(key);
    };
    std::string prefix = "server." + state.server.name;
    note(server.conninfo != state.server.conninfo, prefix + ".conninfo");
    note(server.slot != state.server.slot, prefix + ".slot");
    note(loaded.repo.root != state.config.repo.root, "repo.primary.url");
    note(loaded.key_path != state.config.key_path, "encryption.key");
    note(!(server.journal == state.server.journal), prefix + ".journal");
    note(!(loaded.classes == state.config.classes), "class");
    bool same_tiers = loaded.tiers.size() == state.tiers.size();
    for (std::size_t i = 0; same_tiers && i < state.tiers.size(); ++i)
        same_tiers = loaded.tiers[i].name == state.tiers[i]->config.name &&
                     loaded.tiers[i].url == state.tiers[i]->config.url &&
                     loaded.tiers[i].bucket == state.tiers[i]->config.bucket;
    note(!same_tiers, "repo.*.url");
    note(loaded.web.socket != state.config.web.socket ||
             loaded.web.address != state.config.web.address ||
             loaded.web.port != state.config.web.port,
         "web.listen");
    return keys;
}

// All other keys. Those of the log were applied when the file was read.
void apply(AgentState& state, const Config& loaded, const ServerConfig& server) {
    state.server.backup = server.backup;
    state.server.rpo_target = server.rpo_target;
    state.server.slot_limit_bytes = server.slot_limit_bytes;
    state.server.slot_give_up_bytes = server.slot_give_up_bytes;
    state.server.wal_fetch = server.wal_fetch;
    state.server.wal_fetch_timeout = server.wal_fetch_timeout;
    state.server.flush_interval = server.flush_interval;
    state.server.acknowledge = server.acknowledge;
    state.server.standby_slots = server.standby_slots;
    state.server.time_zone = server.time_zone;
    std::string root = std::move(state.config.repo.root);
    state.config.repo = loaded.repo;
    state.config.repo.root = std::move(root);
    // Where they are counts from the next start.
    for (TierConfig& tier : state.config.tiers)
        for (const TierConfig& changed : loaded.tiers)
            if (changed.name == tier.name) {
                tier.offload_interval = changed.offload_interval;
                tier.retention = changed.retention;
                tier.expire_grace = changed.expire_grace;
            }
    for (const auto& tier : state.tiers)
        for (const TierConfig& changed : state.config.tiers)
            if (changed.name == tier->config.name) tier->config = changed;
    state.capture.reconfigure(state.server, state.config.repo);
    state.tasks.spawn(set_wal_level(state, loaded.repo.wal_level));
}

void reload(AgentState& state) {
    auto loaded = load_config(state.globals);
    auto server = loaded ? loaded->server(state.server.name) : tl::unexpected(loaded.error());
    if (!server) {
        state.metrics.config_last_reload_successful.set(0);
        log::error("config.refused", server.error().message,
                   {{"config", state.globals.config_path}});
        return;
    }
    std::string waiting = keys_for_a_restart(state, *loaded, **server);
    if (!waiting.empty())
        log::warn("config.restart_needed", "what changed in these keys counts from the next start",
                  {{"keys", waiting}});
    apply(state, *loaded, **server);
    state.metrics.rpo_target_seconds.set(
        std::chrono::duration<double>(state.server.rpo_target).count());
    state.metrics.slot_retained_limit_bytes.set(static_cast<double>(state.server.slot_limit_bytes));
    state.metrics.backup_interval_seconds.set(
        static_cast<double>(state.server.backup.every.count()));
    state.metrics.config_last_reload_successful.set(1);
    state.metrics.config_last_reload_success_timestamp_seconds.set(to_seconds(state.clock.now()));
    log::info("config.reloaded", "the configuration was read again",
              {{"config", state.globals.config_path}});
    state.changed.notify();
}

void stop(AgentState& state) {
    if (state.stopping) return;
    state.stopping = true;
    notify_systemd("STOPPING=1");
    if (state.backup.running) state.backup.running->cancel();
    state.watch_hangup.hang_up();
    state.standby_hangup.hang_up();
    state.capture.stop();
    for (const auto& journal : state.journals)
        journal->stop();
    state.changed.notify();
}

Task<> watch_signals(AgentState& state, asio::signal_set& signals, int& ended_by) {
    while (!state.stopping) {
        boost::system::error_code error;
        int signal = co_await signals.async_wait(asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return;
        if (signal == SIGHUP) {
            reload(state);
            continue;
        }
        log::info("agent.stopping", "draining and closing", {{"signal", signal}});
        ended_by = signal;
        stop(state);
    }
}

// A store that fails ends the agent, and the next one may end as soon: the governor would never see
// for long enough that the slot becomes no smaller.
Task<> wait_for_governor(AgentState& state) {
    const SteadyTime first_look = state.clock.steady_now() + 15s;
    while (!state.stopping && state.server.slot_give_up_bytes &&
           (state.governor.is_above_last_limit() ||
            (!state.slot && state.clock.steady_now() < first_look)))
        co_await wait_for(state.changed, 1s);
}

Task<> capture_until_done(AgentState& state, AgentMode mode, Result<>& result) {
    auto captured = co_await state.capture.run(mode == AgentMode::catch_up);
    if (!captured) result = captured;
    const bool may_begin_again = !captured && captured.error().code == Errc::io;
    if (may_begin_again && mode == AgentMode::serve) co_await wait_for_governor(state);
    stop(state);
}

// What is asked for once fails when the server cannot be reached; only a service waits for it.
// False when there is nothing to go on with.
Task<bool> wait_for_stream(AgentState& state, Result<>& result) {
    while (!state.stopping && !(state.capture.connected() && state.progress.history())) {
        if (const auto& failure = state.capture.last_failure()) {
            result = fail(*failure);
            stop(state);
            co_return false;
        }
        co_await wait_for(state.changed, 100ms);
    }
    co_return !state.stopping;
}

Task<> reach_the_server(AgentState& state, Result<>& result) {
    (void)co_await wait_for_stream(state, result);
}

Task<> one_backup(AgentState& state, AgentRequest request, Result<>& result, int& ended_by) {
    bool streams = co_await wait_for_stream(state, result);
    if (!streams) co_return;
    BackupRequest wanted;
    wanted.label = request.backup_label;
    wanted.fast_checkpoint = request.fast_checkpoint;
    result = start_backup(state, std::move(wanted));
    const bool started = result.has_value();
    while (state.backup.running)
        co_await wait_for(state.changed, 1s);
    if (started && state.backup.last_error) result = fail(*state.backup.last_error);
    // A signal that came too late for it changes nothing.
    if (result) ended_by = 0;
    stop(state);
}

Task<> serve(AgentState& state, AgentRequest request, asio::signal_set& signals, Result<>& result,
             int& ended_by) {
    TaskGroup outer(state.executor);
    outer.spawn(watch_signals(state, signals, ended_by));
    state.tasks.spawn(keep_alive(state));
    state.tasks.spawn(keep_facts(state));
    state.tasks.spawn(keep_slot_facts(state));
    state.tasks.spawn(keep_standby_slots(state));
    for (const auto& tier : state.tiers) {
        state.tasks.spawn(keep_tier(state, *tier));
        state.tasks.spawn(watch_newest(state, *tier));
        state.tasks.spawn(cut_tier_short(state, *tier));
    }
    if (request.mode == AgentMode::serve) {
        state.tasks.spawn(keep_backups(state));
        state.tasks.spawn(keep_retention(state));
    }
    if (request.mode == AgentMode::catch_up) state.tasks.spawn(reach_the_server(state, result));
    if (request.mode == AgentMode::backup)
        state.tasks.spawn(one_backup(state, request, result, ended_by));
    TaskGroup journals(state.executor);
    if (request.mode == AgentMode::serve)
        for (const auto& journal : state.journals)
            journals.spawn(journal->run());
    co_await capture_until_done(state, request.mode, result);
    co_await journals.join();
    state.drained = true;
    state.changed.notify();
    co_await state.tasks.join();
    signals.cancel();
    co_await outer.join();
    if (state.http) co_await state.http->stop();
}

// Debian's RocksDB ends the process when it cannot write while it opens.
Result<> require_room_to_open(const std::string& root) {
    constexpr std::uint64_t kRoomBytes = 4ull << 20;
    auto available = posix_file_system().available_bytes(root);
    if (!available || *available >= kRoomBytes) return {};
    return fail(
        Errc::no_space,
        "the repository is not opened: its disk has only " + format_size(*available) + " free",
        "free space there: at least " + format_size(kRoomBytes));
}

Result<std::unique_ptr<storage::Repository>> open_repository(const Config& config) {
    WV_CHECK(require_room_to_open(config.repo.root));
    WV_TRY(storage::MasterKey master, read_master_key(config));
    storage::RepositoryOptions options;
    options.host = host_name();
    options.version = kVersion;
    options.wal_level = config.repo.wal_level;
    options.base_level = config.repo.base_level;
    WV_TRY(options.packs_store, open_layered_store(config));
    auto opened = storage::Repository::open(posix_file_system(), config.repo.root, master,
                                            system_clock(), options);
    if (!opened) return fail(as_repository_error(std::move(opened).error()));
    return opened;
}

Result<> listen(AgentState& state) {
    HttpServer::Options options;
    options.socket = state.config.web.socket;
    options.address = state.config.web.address;
    options.port = state.config.web.port;
    auto handler = [&state](HttpRequest request) { return answer(state, std::move(request)); };
    auto listening = HttpServer::listen(state.executor, options, handler);
    if (!listening) return fail(listening.error());
    state.http = std::move(*listening);
    return {};
}

// What is restorable is known from the repository, also while the server does not answer. A
// repository that cannot be read is no reason to end: capture says so, and tries again.
void take_up_what_is_stored(AgentState& state) {
    auto known = state.repository->current_history(state.server.name);
    if (!known)
        log::error("store.unreadable", known.error().message);
    else if (*known)
        state.progress.reset(**known, (*known)->end_lsn);
}

}  // namespace

AgentState::AgentState(LeaderLoop& loop, const Globals& chosen, Config configured,
                       const ServerConfig& served, std::unique_ptr<storage::Repository> opened)
    : executor(loop.context().get_executor()),
      globals(chosen),
      config(std::move(configured)),
      server(served),
      pools{.waited_for = Pool(loop)},
      repository(std::move(opened)),
      metrics(registry, server, "primary"),
      progress(executor),
      capture(executor, pools, *repository, progress, metrics, clock, server, config.repo),
      changed(executor),
      tasks(executor) {}

Result<int> run_agent(const Globals& globals, const AgentRequest& request) {
    WV_TRY(Config config, load_config(globals));
    for (const std::string& warning : config.warnings)
        log::warn("config.unknown_variable", warning);
    WV_TRY(const ServerConfig* found, config.server(globals.server));
    ServerConfig server = *found;
    const OpenRepository open = [&config] { return open_repository(config); };
    auto opened = request.mode == AgentMode::serve ? open_and_guard_slot(open, server) : open();
    if (!opened && opened.error().code == Errc::cancelled) return 0;
    if (!opened) return fail(std::move(opened).error());
    std::unique_ptr<storage::Repository> repository = std::move(*opened);
    LeaderLoop loop;
    AgentState state(loop, globals, std::move(config), server, std::move(repository));
    asio::signal_set signals(loop.context(), SIGTERM, SIGINT, SIGHUP);
    take_up_what_is_stored(state);
    state.retention.places.push_back(
        {.place = "", .metrics = state.metrics.retention(state.config.repo.name)});
    WV_CHECK(make_tiers(state));
    make_journals(state);
    WV_CHECK(listen(state));
    log::info("agent.started", "walvault runs",
              {{"server", state.server.name},
               {"repository", state.config.repo.root},
               {"version", kVersion},
               {"port", state.http->port()},
               {"memory_budget_mib", kMemoryMib + state.object_lanes * kLaneMemoryMib}});
    state.metrics.config_last_reload_successful.set(1);
    state.metrics.config_last_reload_success_timestamp_seconds.set(to_seconds(state.clock.now()));
    state.loop_turned_at = state.clock.steady_now();
    notify_systemd("READY=1\nSTATUS=attaching to the server");
    Result<> result;
    int ended_by = 0;
    asio::co_spawn(loop.context(), serve(state, request, signals, result, ended_by),
                   [](std::exception_ptr failed) {
                       if (failed) std::terminate();
                   });
    loop.run();
    auto synced = state.repository->sync();
    if (result && !synced) result = synced;
    log::info("agent.stopped", "everything received is flushed",
              {{"flushed_lsn", to_string(state.progress.flushed_lsn())}});
    if (!result && !(ended_by != 0 && result.error().code == Errc::cancelled))
        return fail(std::move(result).error());
    return ended_by;
}

}  // namespace walvault::agent
