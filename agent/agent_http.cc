#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/agent_state.h"
#include "agent/render.h"
#include "agent/version.h"
#include "base/blocking.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

constexpr std::chrono::seconds kLoopMayPause{30};

HttpResponse respond(const SortedJson& body, unsigned status = 200) {
    return {.status = status,
            .body = body.dump(-1, ' ', false, SortedJson::error_handler_t::replace) + "\n"};
}

HttpResponse respond_error(const Error& error) {
    unsigned status = error.code == Errc::busy ? 409 : error.code == Errc::unavailable ? 503 : 400;
    return http_error(status, error);
}

// Positions and times change with every message; they are copied to their gauges when somebody
// looks.
void publish_positions(AgentState& state) {
    AgentMetrics& metrics = state.metrics;
    const Progress& progress = state.progress;
    auto number = [](Lsn lsn) { return static_cast<double>(lsn.value); };
    metrics.upstream_lsn_bytes.set(number(progress.upstream_lsn()));
    metrics.received_lsn_bytes.set(number(progress.received_lsn()));
    metrics.written_lsn_bytes.set(number(progress.written_lsn()));
    metrics.durable_lsn_bytes.set(number(progress.flushed_lsn()));
    metrics.acknowledged_lsn_bytes.set(number(progress.acknowledged_lsn()));
    metrics.closed_lsn_bytes.set(number(progress.closed_lsn()));
    const SteadyTime now = state.clock.steady_now();
    for (auto& [lag, position] : {std::pair(&metrics.durable_lag, progress.flushed_lsn()),
                                  std::pair(&metrics.acknowledged_lag, progress.acknowledged_lsn()),
                                  std::pair(&metrics.closed_lag, progress.closed_lsn())}) {
        const Lsn upstream = std::max(progress.upstream_lsn(), position);
        lag->bytes.set(static_cast<double>(upstream - position));
        lag->seconds.set(std::chrono::duration<double>(progress.behind(position, now)).count());
    }
    for (const auto& tier : state.tiers) {
        const TierLag lag = lag_of(state, *tier);
        tier->metrics.lag_bytes.set(static_cast<double>(lag.bytes));
        tier->metrics.lag_seconds.set(std::chrono::duration<double>(lag.time).count());
        tier->metrics.pending_bytes.set(static_cast<double>(tier->pending_bytes));
        tier->metrics.until_timestamp_seconds.set(to_seconds(tier->offloaded_until));
    }
    metrics.recoverable_until_timestamp_seconds.set(to_seconds(progress.recoverable_until()));
    metrics.sync_log_counts();
    const storage::Repository::Counts counts = state.repository->counts();
    metrics.store_read_bytes_total.raise_to(static_cast<double>(counts.read_bytes));
    metrics.store_errors_total.at(StoreOperation::read)
        .raise_to(static_cast<double>(counts.read_errors));
    metrics.store_errors_total.at(StoreOperation::ledger)
        .raise_to(static_cast<double>(counts.ledger_errors));
}

Task<Result<>> append_entry(AgentState& state, pb::LedgerEntry entry) {
    auto enter = [&state, entry] { return state.repository->append_to_ledger(entry); };
    co_return co_await run_on(state.pools.store, std::move(enter));
}

Result<pb::LedgerEntry> restore_entry(const SortedJson& body) {
    pb::LedgerEntry entry;
    entry.set_actor(body.value("actor", "restore"));
    pb::RestoreDone& done = *entry.mutable_restore_done();
    done.set_cluster(body.value("cluster", ""));
    done.set_target(body.value("target", ""));
    done.set_backup_id(body.value("backup_id", ""));
    Id16 history{};
    if (from_hex(body.value("history_id", ""), history))
        done.set_history_id(storage::text_of(history));
    WV_TRY(Lsn stop, parse_lsn(body.value("stop_lsn", "0/0")));
    done.set_stop_lsn(stop.value);
    done.set_confirmed(body.value("confirmed", false));
    done.set_restored_bytes(body.value("restored_bytes", std::uint64_t{0}));
    done.set_duration_ms(body.value("duration_ms", std::uint64_t{0}));
    return entry;
}

Result<pb::LedgerEntry> verify_entry(const SortedJson& body) {
    pb::LedgerEntry entry;
    entry.set_actor(body.value("actor", "verify"));
    entry.mutable_verify_done()->set_level(body.value("level", ""));
    entry.mutable_verify_done()->set_checked_bytes(body.value("checked_bytes", std::uint64_t{0}));
    entry.mutable_verify_done()->set_failed_count(body.value("failed_count", std::uint64_t{0}));
    return entry;
}

Result<pb::LedgerEntry> entry_of(const HttpRequest& request) {
    SortedJson body = SortedJson::parse(request.body, nullptr, false);
    if (!body.is_object()) return fail(Errc::invalid_argument, "the body is not a JSON object");
    try {
        return request.path == "/v1/restore-done" ? restore_entry(body) : verify_entry(body);
    } catch (const SortedJson::exception& error) {
        return fail(Errc::invalid_argument,
                    std::string("the body has a field of another type: ") + error.what());
    }
}

Task<HttpResponse> answer_hold(AgentState& state, HttpRequest request) {
    const SortedJson body = SortedJson::parse(request.body, nullptr, false);
    Result<std::string> done;
    if (!body.is_object() || body.value("server", SortedJson()) != state.server.name)
        co_return respond_error(
            {Errc::refused,
             "this agent is of server " + state.server.name +
                 ", which is not the one that was meant",
             "--server " + state.server.name + ", or the configuration of the other one's agent"});
    if (request.path == "/v1/hold") {
        auto wanted = hold_wanted_of(body);
        if (!wanted) co_return respond_error(wanted.error());
        done = co_await place_hold(state, std::move(*wanted));
    } else {
        const auto text = [&](const char* key) {
            const bool there = body.is_object() && body.contains(key) && body[key].is_string();
            return there ? body[key].get<std::string>() : std::string();
        };
        done = co_await release_hold(state, text("hold_id"), text("reason"), text("actor"));
    }
    if (!done) co_return respond_error(done.error());
    co_return respond({{"hold_id", *done}});
}

Task<HttpResponse> answer_post(AgentState& state, HttpRequest request) {
    if (request.path == "/v1/backup") {
        SortedJson body =
            SortedJson::parse(request.body.empty() ? "{}" : request.body, nullptr, false);
        BackupRequest wanted;
        if (body.is_object() && body.contains("label") && body["label"].is_string())
            wanted.label = body["label"].get<std::string>();
        wanted.fast_checkpoint = body.is_object() && body.contains("fast") && body["fast"] == true;
        auto started = start_backup(state, std::move(wanted));
        if (!started) co_return respond_error(started.error());
        co_return respond(backup_json(state), 202);
    }
    if (request.path == "/v1/expire") {
        auto started = start_retention(state);
        if (!started) co_return respond_error(started.error());
        co_return respond(retention_json(state), 202);
    }
    if (request.path == "/v1/hold" || request.path == "/v1/release")
        co_return co_await answer_hold(state, std::move(request));
    if (request.path == "/v1/restore-done" || request.path == "/v1/verify-done") {
        auto entry = entry_of(request);
        if (!entry) co_return respond_error(entry.error());
        auto entered = co_await append_entry(state, std::move(*entry));
        if (!entered) co_return respond_error(entered.error());
        co_return respond({{"recorded", true}});
    }
    co_return respond({{"error", {{"code", "not_found"}, {"message", "no such path"}}}}, 404);
}

}  // namespace

SortedJson json_of(const pb::BackupInfo& backup) {
    return {{"backup_id", backup.backup_id()},
            {"label", backup.label()},
            {"start_lsn", to_string(Lsn{backup.start_lsn()})},
            {"stop_lsn", to_string(Lsn{backup.stop_lsn()})},
            {"started_at", to_utc_text(WallTime(Micros(backup.started_at_us())))},
            {"stopped_at", to_utc_text(WallTime(Micros(backup.stopped_at_us())))},
            {"timeline", backup.timeline()},
            {"bytes", backup.plain_bytes()},
            {"new_bytes", backup.new_chunk_bytes()},
            {"stored_bytes", backup.stored_bytes()}};
}

SortedJson backup_json(const AgentState& state) {
    SortedJson body{{"running", state.backup.running != nullptr},
                    {"started_count", state.backup.started_count}};
    if (state.backup.running) {
        body["done_bytes"] = state.backup.running->done_bytes();
        body["expected_bytes"] = state.backup.running->expected_bytes();
    }
    if (state.backup.last) body["last"] = json_of(*state.backup.last);
    if (state.backup.last_error) body["last_error"] = json_of(*state.backup.last_error);
    return body;
}

static SortedJson json_of(const PlaceRetention& at, std::chrono::seconds window) {
    SortedJson body{{"repo", at.place.empty() ? "primary" : at.place},
                    {"window_s", window.count()}};
    if (at.last) body["last"] = json_of(*at.last);
    if (at.last_error) body["last_error"] = json_of(*at.last_error);
    return body;
}

SortedJson retention_json(const AgentState& state) {
    SortedJson body{{"running", state.retention.running}, {"places", SortedJson::array()}};
    const auto places = expire_places(state.config);
    for (const PlaceRetention& at : state.retention.places)
        for (const ExpirePlace& place : places)
            if (place.name == at.place) body["places"].push_back(json_of(at, place.rules.window));
    return body;
}

// Where the oldest base ended from which everything later can be restored.
WallTime recoverable_from(const AgentState& state, WallTime first_base_stopped) {
    WallTime from = WallTime::max();
    const auto places = expire_places(state.config);
    if (places.size() < state.retention.places.size()) return first_base_stopped;
    for (const PlaceRetention& at : state.retention.places)
        from = std::min(from, at.last ? at.last->restorable_from.value_or(first_base_stopped)
                                      : first_base_stopped);
    return std::max(from, first_base_stopped);
}

static SortedJson json_of(const StandbyState& standby) {
    SortedJson body{{"host", standby.name},
                    {"streamed", standby.streamed},
                    {"slot_ready", standby.ready},
                    {"slot_retained_bytes", standby.retained_bytes}};
    if (standby.restart_lsn) body["slot_restart_lsn"] = to_string(*standby.restart_lsn);
    if (!standby.problem.empty()) body["problem"] = standby.problem;
    return body;
}

static SortedJson tier_json(const AgentState& state, const TierState& tier) {
    const TierLag lag = lag_of(state, tier);
    SortedJson body{
        {"name", tier.config.name},
        {"url", tier.config.url},
        {"up", tier.up},
        {"offload_interval_ms", tier.config.offload_interval.count()},
        {"offloaded_lsn", to_string(tier.offloaded_lsn)},
        {"lag_bytes", lag.bytes},
        {"lag_ms", std::chrono::duration_cast<std::chrono::milliseconds>(lag.time).count()},
        {"pending_bytes", tier.pending_bytes}};
    if (tier.offloaded_until != WallTime{})
        body["recoverable_until"] = to_utc_text(tier.offloaded_until);
    if (tier.error) body["error"] = json_of(*tier.error);
    return body;
}

SortedJson status_json(const AgentState& state) {
    const Progress& progress = state.progress;
    SortedJson body{{"server", state.server.name},
                    {"version", kVersion},
                    {"pid", ::getpid()},
                    {"connected", state.capture.connected()},
                    {"synchronous", state.capture.synchronous()},
                    {"last_error", state.capture.last_error()},
                    {"repository", state.config.repo.root},
                    {"slot", state.server.slot},
                    {"upstream_lsn", to_string(progress.upstream_lsn())},
                    {"received_lsn", to_string(progress.received_lsn())},
                    {"written_lsn", to_string(progress.written_lsn())},
                    {"flushed_lsn", to_string(progress.flushed_lsn())},
                    {"acknowledged_lsn", to_string(progress.acknowledged_lsn())},
                    {"closed_lsn", to_string(progress.closed_lsn())},
                    {"recoverable_until", to_utc_text(progress.recoverable_until())},
                    {"rpo_target_ms", state.server.rpo_target.count()},
                    {"backup_count", state.backups.size()},
                    {"gap_count", state.gaps.size()},
                    {"wal_plain_bytes", state.totals.wal_plain_bytes +
                                            (progress.flushed_lsn() - progress.closed_lsn())},
                    {"wal_stored_bytes", state.totals.wal_stored_bytes},
                    {"base_stored_bytes", state.totals.base_stored_bytes},
                    {"backup", backup_json(state)},
                    {"retention", retention_json(state)}};
    if (!state.backups.empty()) {
        body["recoverable_from"] = to_utc_text(
            recoverable_from(state, WallTime(Micros(state.backups.front().stopped_at_us()))));
        body["last_backup"] = json_of(state.backups.back());
    }
    if (progress.history()) {
        body["history"] = to_hex(progress.history()->id);
        body["timeline"] = progress.history()->timeline;
    }
    if (state.capture.identity())
        body["system_identifier"] =
            std::to_string(state.capture.identity()->system.system_identifier);
    for (const StandbyState& standby : state.standbys)
        body["hosts"].push_back(json_of(standby));
    for (const auto& tier : state.tiers)
        body["tiers"].push_back(tier_json(state, *tier));
    for (const auto& journal : state.journals)
        body["journals"].push_back(journal_json(journal->status()));
    if (state.slot) {
        body["slot_active"] = state.slot->active;
        body["slot_retained_bytes"] = state.slot->retained_bytes;
        body["slot_wal_status"] = state.slot->wal_status;
    }
    return body;
}

Task<HttpResponse> answer(AgentState& state, HttpRequest request) {
    if (request.method == "POST") co_return co_await answer_post(state, std::move(request));
    if (request.path == "/metrics") {
        publish_positions(state);
        HttpResponse response;
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
        response.body = state.registry.exposition();
        co_return response;
    }
    if (request.path == "/livez") {
        bool turns = state.clock.steady_now() - state.loop_turned_at < kLoopMayPause;
        co_return respond({{"live", turns}}, turns ? 200 : 503);
    }
    if (request.path == "/readyz") {
        bool ready = state.capture.connected();
        co_return respond({{"ready", ready}, {"reason", state.capture.last_error()}},
                          ready ? 200 : 503);
    }
    if (request.path == "/v1/status") co_return respond(status_json(state));
    if (request.path == "/v1/backup") co_return respond(backup_json(state));
    if (request.path == "/v1/expire") co_return respond(retention_json(state));
    co_return respond({{"error", {{"code", "not_found"}, {"message", "no such path"}}}}, 404);
}

}  // namespace walvault::agent
