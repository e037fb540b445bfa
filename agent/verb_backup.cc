// walvault backup: a base backup now, by the running agent, or by one that lives as long as it
// takes.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/agent.h"
#include "agent/agent_state.h"
#include "agent/control.h"
#include "agent/open_view.h"
#include "agent/progress_line.h"
#include "agent/render.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

Result<SortedJson> ask(const std::string& socket, const std::string& method,
                       const std::string& body = {}) {
    WV_TRY(std::string text, call_agent(socket, method, "/v1/backup", body));
    SortedJson parsed = SortedJson::parse(text, nullptr, false);
    if (!parsed.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
    return parsed;
}

// Follows the agent's base backup to its end.
Result<SortedJson> follow(const Globals& globals, const std::string& socket) {
    ProgressLine progress = ProgressLine::for_globals(globals, "backup", system_clock());
    progress.begin("copy", 0);
    for (;;) {
        WV_TRY(SortedJson now, ask(socket, "GET"));
        if (!now.value("running", false)) {
            if (now.contains("last_error"))
                return fail_while("the base backup failed", error_of(now["last_error"]));
            progress.finish();
            return now["last"];
        }
        progress.set_total(now.value("expected_bytes", std::uint64_t{0}));
        progress.update(now.value("done_bytes", std::uint64_t{0}));
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
}

// As the agent tells it and `info --backups` does.
int print(const Globals& globals, const SortedJson& backup) {
    if (globals.output != Output::text) {
        print_answer(globals, backup);
        return kExitDone;
    }
    std::printf("Base backup %s is complete: %s, %s of it new, %s stored.\n",
                backup.value("backup_id", "").c_str(),
                format_size(backup.value("bytes", std::uint64_t{0})).c_str(),
                format_size(backup.value("new_bytes", std::uint64_t{0})).c_str(),
                format_size(backup.value("stored_bytes", std::uint64_t{0})).c_str());
    return kExitDone;
}

// Missing WAL is the end of this backup, not a target that cannot be restored.
std::optional<ExitCode> code_of_backup(const Error& error) {
    return error.code == Errc::gap ? std::optional(kExitFailed) : std::nullopt;
}

Result<SortedJson> newest_backup(const Globals& globals) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(auto backups, opened.view->backups(opened.cluster.name));
    if (backups.empty()) return fail(Errc::corrupt, "the base backup is not in the repository");
    return json_of(backups.back());
}

int run_alone(const Globals& globals, const BackupArguments& arguments) {
    if (!globals.quiet)
        std::fprintf(stderr,
                     "No agent runs here: streaming WAL for as long as the base backup takes.\n");
    AgentRequest request;
    request.mode = AgentMode::backup;
    if (!arguments.label.empty()) request.backup_label = arguments.label;
    request.fast_checkpoint = arguments.fast;
    log::configure(log::Level::warn, log::Format::text);
    auto ran = run_agent(globals, request);
    if (!ran) return report(globals, ran.error(), code_of_backup(ran.error()));
    if (*ran != 0) return report_signal(globals, *ran);
    auto newest = newest_backup(globals);
    if (!newest) return report(globals, newest.error());
    return print(globals, *newest);
}

}  // namespace

int verb_backup(const Globals& globals, const BackupArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    SortedJson body{{"fast", arguments.fast}};
    if (!arguments.label.empty()) body["label"] = arguments.label;
    if (globals.dry_run) {
        if (globals.output != Output::text) {
            print_answer(globals, SortedJson{{"dry_run", true},
                                             {"server", config->servers.front().name},
                                             {"repository", config->repo.root}});
            return kExitDone;
        }
        std::printf("Would take a base backup of %s into %s.\n",
                    config->servers.front().name.c_str(), config->repo.root.c_str());
        return kExitDone;
    }
    if (!agent_listens(config->web.socket)) return run_alone(globals, arguments);
    auto started = ask(config->web.socket, "POST",
                       body.dump(-1, ' ', false, SortedJson::error_handler_t::replace));
    if (!started) return report(globals, started.error());
    auto done = follow(globals, config->web.socket);
    if (!done) return report(globals, done.error(), code_of_backup(done.error()));
    return print(globals, *done);
}

}  // namespace walvault::agent
