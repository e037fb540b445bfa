// walvault restore: a plan, its execution, and, when asked, a server that says where it stopped.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/expire.h"
#include "agent/open_view.h"
#include "agent/operating_user.h"
#include "agent/render.h"
#include "agent/restore_directory.h"
#include "agent/restore_job.h"
#include "agent/restore_ledger.h"
#include "agent/restore_settings.h"
#include "agent/restore_start.h"
#include "agent/restore_thaw.h"
#include "agent/server_process.h"
#include "agent/stop_point_text.h"
#include "agent/verbs.h"
#include "proto/server_version.h"

namespace walvault::agent {
namespace {

class RestoreVerb {
public:
    RestoreVerb(const Globals& globals, const RestoreArguments& arguments)
        : globals_(globals), arguments_(arguments) {}

    Result<ExitCode> run() {
        WV_CHECK(require_arguments());
        ProgressLine progress = ProgressLine::for_globals(globals_, "restore", system_clock());
        RestoreThaw thaw(globals_, arguments_, progress);
        Prepared ready;
        for (;;) {
            auto found = prepare();
            WV_TRY(const RestoreThaw::Next next, thaw.next(opened_, found ? &found->plan : nullptr,
                                                           found ? nullptr : &found.error()));
            if (found) ready = std::move(*found);
            if (found && globals_.output == Output::text && !globals_.quiet)
                print(plan_text(ready.plan, ready.options));
            if (globals_.dry_run) return finish_dry_run(found ? &ready.plan : nullptr, thaw);
            if (next == RestoreThaw::Next::restore) break;
            WV_CHECK(thaw.carry_out(opened_));
        }
        WV_TRY(auto keeper, thaw.keep());
        const RestorePlan& plan = ready.plan;
        WV_TRY(RestoreOutcome outcome, run_restore(*opened_.view, plan, ready.options, progress));
        if (!arguments_.start) {
            WV_CHECK(thaw.finish());
            return finish(plan, outcome, std::nullopt, ready.options);
        }
        const StartRequest request{bin_directory_, arguments_.action, ready.options.port,
                                   ready.options.socket_directory, ready.options.owner};
        WV_TRY(StartedServer started, start_and_confirm(plan, request, progress));
        WV_CHECK(thaw.finish());
        return finish(plan, outcome, started, ready.options);
    }

private:
    struct Prepared {
        RestorePlan plan;
        RestoreOptions options;
    };

    // Opened anew: what was thawed since can be read now.
    Result<Prepared> prepare() {
        lease_.reset();
        opened_.view.reset();
        opened_.store.reset();
        WV_CHECK(open_view_into(globals_, opened_));
        if (!globals_.dry_run) lease_ = hold_lease(opened_, "restore");
        WV_TRY(const RestoreInputs inputs, gather());
        Prepared prepared;
        WV_TRY(prepared.plan, plan_restore(inputs));
        WV_TRY(prepared.options, make_options(prepared.plan));
        if (!prepared.plan.wal_in_place)
            WV_CHECK(require_wal_get(prepared.plan, inputs, prepared.options));
        return prepared;
    }

    Result<> require_arguments() const {
        if (arguments_.to.empty() == arguments_.before.empty())
            return fail(Errc::invalid_argument, "restore needs one target: --to or --before",
                        "the newest there is: --to latest");
        if (arguments_.action != "pause" && arguments_.action != "promote" &&
            arguments_.action != "shutdown")
            return fail(Errc::invalid_argument, "--action is pause, promote or shutdown, not '" +
                                                    printable(arguments_.action) + "'");
        return {};
    }

    Result<RestoreInputs> gather() {
        const bool before = arguments_.to.empty();
        const TimeContext times{system_clock().now(), opened_.zone};
        WV_TRY(Target target,
               parse_target(before ? arguments_.before : arguments_.to, before, times));
        const ResolveContext context = resolve_context(opened_, times.now, arguments_.history);
        // Before anything is written.
        WV_TRY([[maybe_unused]] const ServerVersion* version,
               find_server_version(server_major_of(opened_.cluster.server_version_num),
                                   "\"" + opened_.cluster.name + "\""));
        RestoreInputs inputs;
        WV_TRY(inputs.stop, resolve_target(*opened_.view, target, context));
        inputs.cluster = opened_.cluster;
        inputs.repository_root = opened_.config.repo.root;
        inputs.wal_place = arguments_.wal == "copy"    ? WalPlace::copied
                           : arguments_.wal == "fetch" ? WalPlace::fetched
                                                       : WalPlace::automatic;
        WV_TRY(inputs.directory, inspect_directory(arguments_.pgdata));
        WV_TRY(inputs.tablespaces, place_tablespaces(inputs.stop.base, arguments_.tablespaces));
        for (const auto& place : inputs.tablespaces) {
            WV_TRY(DirectoryFacts facts, inspect_directory(place.location));
            inputs.tablespace_facts.push_back(std::move(facts));
        }
        if (inputs.stop.timeline() > 1) {
            WV_TRY(std::string text,
                   opened_.view->timeline_history(inputs.stop.history.id, inputs.stop.timeline()));
            WV_TRY(inputs.switches, parse_timeline_history(text, inputs.stop.timeline()));
        }
        return inputs;
    }

    // Replay will run wal-get as the server's user and without this environment: tried now, since a
    // server that cannot fetch its WAL stops in the middle. Where all WAL fits it is copied
    // instead.
    Result<> require_wal_get(RestorePlan& plan, RestoreInputs inputs,
                             const RestoreOptions& options) const {
        std::vector<std::string> trial{"/usr/bin/env", "-i", globals_.program};
        trial.insert(trial.end(), source_.begin(), source_.end());
        trial.insert(trial.end(), {"--server", opened_.cluster.name, "info", "--points"});
        auto tried = run_program(trial, options.owner);
        if (tried) return {};
        inputs.wal_place = WalPlace::copied;
        if (arguments_.wal == "auto") {
            if (auto copied = plan_restore(std::move(inputs))) {
                plan = std::move(*copied);
                return {};
            }
        }
        const std::string user = options.owner ? options.owner->name : "this user";
        const std::string& why = tried.error().message;
        return fail(
            Errc::refused,
            "replay would fetch its WAL with wal-get, which " + user + " cannot run: " +
                why.substr(why.find("error: ") == std::string::npos ? 0 : why.find("error: ")),
            "let " + user + " read " + (opened_.is_tier ? "" : source_.back() + ", ") +
                "the key and the repository, or "
                "free enough space for all WAL and say --wal copy");
    }

    Result<RestoreOptions> make_options(const RestorePlan& plan) {
        RestoreOptions options;
        options.jobs = arguments_.jobs;
        options.action = arguments_.action;
        WV_TRY(options.owner, server_owner(plan.directory.path));
        auto absolute = [](const std::string& path) {
            return std::filesystem::absolute(path).string();
        };
        if (globals_.from_is_name())
            source_ = {"--config", absolute(globals_.config_path), "--from", globals_.from};
        else if (opened_.is_tier)
            source_ = {"--from", globals_.from, "--key-file", absolute(globals_.key_path)};
        else
            source_ = {"--config", absolute(globals_.config_path)};
        options.restore_command = fetch_command(globals_.program, source_, opened_.cluster.name);
        auto found =
            find_postgres(server_major_of(plan.cluster.server_version_num), arguments_.pg_bin);
        if (found) bin_directory_ = *found;
        if (!arguments_.start) return options;
        if (!found) return fail(std::move(found).error());
        options.socket_directory = choose_socket_directory("", plan.directory.path, options.owner);
        options.port = arguments_.port;
        if (options.port == 0) {
            WV_TRY(options.port, free_port(5433, options.socket_directory));
        }
        return options;
    }

    std::string plan_text(const RestorePlan& plan, const RestoreOptions& options) const {
        std::string text = "Plan\n" + stop_point_text(plan.stop, opened_.zone);
        text += "  from       " + opened_.store->url() + "\n";
        text += "  into       " + printable(plan.directory.path) + " (" +
                (plan.directory.state == DirectoryFacts::State::absent ? "new"
                 : plan.directory.state == DirectoryFacts::State::incomplete
                     ? "an interrupted restore, starting over"
                     : "empty") +
                (options.owner ? ", owner " + options.owner->name : "") + ", " +
                format_size(plan.free_bytes) + " free, needs " + format_size(plan.needed_bytes) +
                ")\n";
        for (const auto& place : plan.tablespaces)
            text += "             tablespace " + std::to_string(place.oid) + " into " +
                    printable(place.location) + "\n";
        text += "  WAL        " +
                std::string(plan.wal_in_place ? "copied into pg_wal"
                                              : "fetched by wal-get as replay asks for it") +
                "\n";
        text += "  after      " + after_text(options) + ", archive_mode off\n";
        return text;
    }

    std::string after_text(const RestoreOptions& options) const {
        const std::string then = arguments_.action == "pause"
                                     ? "read-only at the target until you promote it"
                                 : arguments_.action == "promote" ? "promoted at the target"
                                                                  : "shut down at the target";
        if (!arguments_.start) return "not started; once it is, " + then;
        return "started on port " + std::to_string(options.port) + ", " + then;
    }

    nlohmann::ordered_json plan_json(const RestorePlan& plan) const {
        nlohmann::ordered_json json = stop_point_json(plan.stop);
        json["server"] = opened_.cluster.name;
        json["pgdata"] = plan.directory.path;
        json["needed_bytes"] = plan.needed_bytes;
        json["free_bytes"] = plan.free_bytes;
        json["wal_in_place"] = plan.wal_in_place;
        return json;
    }

    // Without a plan: what it depends on is archived.
    Result<ExitCode> finish_dry_run(const RestorePlan* plan, const RestoreThaw& thaw) const {
        if (globals_.output == Output::text) {
            print(thaw.text() + "Nothing was changed (--dry-run).\n");
            return kExitDone;
        }
        nlohmann::ordered_json json{{"dry_run", true}, {"plan", nullptr}};
        if (plan != nullptr) json["plan"] = plan_json(*plan);
        if (thaw.has_plan()) json["thaw"] = thaw.json();
        print_answer(globals_, json);
        return kExitDone;
    }

    Result<ExitCode> finish(const RestorePlan& plan, const RestoreOutcome& outcome,
                            const std::optional<StartedServer>& started,
                            const RestoreOptions& options) {
        const auto took =
            outcome.copy_time + (started ? started->replay_time : std::chrono::microseconds(0));
        const RestoreReport entry{&plan, outcome.restored_bytes, took,
                                  started && started->confirmed};
        // What is written into the repository stays its owner's.
        if (!opened_.is_tier) {
            const EffectiveUser as_owner(repository_owner(opened_.config.repo.root));
            if (auto recorded = record_restore(opened_, entry); !recorded)
                std::fprintf(stderr, "warning: the restore is not in the ledger: %s\n",
                             printable(recorded.error().message).c_str());
        }
        if (globals_.output == Output::text)
            print(done_text(plan, took, started, options));
        else
            print_answer(globals_, done_json(plan, outcome, took, started, options));
        if (started && !started->confirmed) return kExitUnconfirmed;
        return kExitDone;
    }

    std::string done_text(const RestorePlan& plan, std::chrono::microseconds took,
                          const std::optional<StartedServer>& started,
                          const RestoreOptions& options) const {
        const std::string& directory = plan.directory.path;
        const std::string done = "Restored in " + format_duration(took) + ". ";
        // PostgreSQL's programs are not in Debian's PATH, and do not run as root.
        const std::string as_owner =
            options.owner ? "runuser -u " + options.owner->name + " -- " : "";
        const std::string pg_ctl = as_owner + (bin_directory_.empty() ? "" : bin_directory_ + "/") +
                                   "pg_ctl -D " + directory;
        if (!started)
            return done + "Not started.\n  start    " + pg_ctl + " -l " + directory +
                   "/walvault-start.log -o '-p 5433' start\n  drop it  rm -r " + directory + "\n";
        std::string text = started->confirmed ? "check   ok  " + started->detail + "\n"
                                              : "check   NOT CONFIRMED  " + started->detail + "\n";
        const std::string port = std::to_string(options.port);
        if (!started->running) return text + done + "The server is stopped.\n";
        text += done + (started->paused ? "The server is up, read-only, paused at the target.\n"
                                        : "The server is up.\n");
        const std::string psql =
            as_owner + "psql -p " + port + " -h " + options.socket_directory + " postgres";
        text += "  look     " + psql + "\n";
        if (started->paused)
            text +=
                "  keep it  " + psql + " -c 'SELECT pg_wal_replay_resume()'      (promotes it)\n";
        return text + "  drop it  " + pg_ctl + " stop && rm -r " + directory + "\n";
    }

    nlohmann::ordered_json done_json(const RestorePlan& plan, const RestoreOutcome& outcome,
                                     std::chrono::microseconds took,
                                     const std::optional<StartedServer>& started,
                                     const RestoreOptions& options) const {
        nlohmann::ordered_json json{{"type", "result"}};
        json["plan"] = plan_json(plan);
        json["restored_bytes"] = outcome.restored_bytes;
        json["duration_ms"] = took.count() / 1000;
        json["started"] = started.has_value();
        if (!started) return json;
        json["confirmed"] = started->confirmed;
        json["running"] = started->running;
        json["paused"] = started->paused;
        json["replayed_lsn"] = to_string(started->replayed_lsn);
        json["port"] = options.port;
        json["socket_directory"] = options.socket_directory;
        json["pid"] = started->pid;
        return json;
    }

    static void print(const std::string& text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    }

    const Globals& globals_;
    const RestoreArguments& arguments_;
    OpenedView opened_;
    std::unique_ptr<storage::HeldLease> lease_;  // goes before the store
    std::string bin_directory_;                  // empty: not found
    std::vector<std::string> source_;  // where wal-get reads from: options with absolute paths
};

}  // namespace

int verb_restore(const Globals& globals, const RestoreArguments& arguments) {
    auto code = RestoreVerb(globals, arguments).run();
    if (!code) return report(globals, code.error());
    return *code;
}

}  // namespace walvault::agent
