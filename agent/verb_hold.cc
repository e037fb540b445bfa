// walvault hold, walvault release: what may not expire, and no longer so; by the agent where one
// runs.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/control.h"
#include "agent/hold.h"
#include "agent/open_repository.h"
#include "agent/open_view.h"
#include "agent/operating_user.h"
#include "agent/render.h"
#include "agent/target.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using namespace std::chrono_literals;

// While retention is at work nothing is held: its next pass knows of it.
constexpr auto kAskAgain = 200ms;
constexpr auto kAskFor = 10min;
constexpr std::chrono::hours kLongest{100 * 365 * 24};

Result<nlohmann::json> ask_agent(const std::string& socket, const std::string& path,
                                 const nlohmann::json& wanted) {
    const std::string body = wanted.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    const SteadyTime give_up = system_clock().steady_now() + kAskFor;
    for (;;) {
        auto text = call_agent(socket, "POST", path, body);
        if (!text && text.error().code == Errc::busy && system_clock().steady_now() < give_up) {
            std::this_thread::sleep_for(kAskAgain);
            continue;
        }
        if (!text) return fail(text.error());
        auto parsed = nlohmann::json::parse(*text, nullptr, false);
        if (!parsed.is_object()) return fail(Errc::corrupt, "the agent's answer cannot be read");
        return parsed;
    }
}

Result<std::string> place(const Config& config, const std::string& cluster,
                          const HoldWanted& wanted) {
    if (agent_listens(config.web.socket)) {
        nlohmann::json body = json_of(wanted);
        body["server"] = cluster;
        WV_TRY(auto answer, ask_agent(config.web.socket, "/v1/hold", body));
        return answer.value("hold_id", "");
    }
    WV_TRY(auto repository, open_repository(config, "hold"));
    WV_CHECK(require_holdable(config, cluster, wanted));
    WV_TRY(std::string id, repository->place_hold(placed_of(cluster, wanted), wanted.actor));
    WV_CHECK(repository->sync());
    return id;
}

Result<> release(const Config& config, const std::string& cluster, const ReleaseArguments& wanted) {
    WV_CHECK(check_reason(wanted.reason));
    const std::string actor = "release by " + asking_user();
    if (agent_listens(config.web.socket)) {
        const nlohmann::json body{{"server", cluster},
                                  {"hold_id", wanted.id},
                                  {"reason", wanted.reason},
                                  {"actor", actor}};
        return ask_agent(config.web.socket, "/v1/release", body).map([](const auto&) {});
    }
    WV_TRY(auto repository, open_repository(config, "hold"));
    pb::HoldReleased released;
    released.set_cluster(cluster);
    released.set_hold_id(wanted.id);
    released.set_reason(wanted.reason);
    WV_CHECK(repository->release_hold(std::move(released), actor));
    return repository->sync();
}

Result<HoldWanted> wanted_of(const HoldArguments& arguments, const TimeContext& times) {
    HoldWanted wanted;
    wanted.backup_id = arguments.backup;
    wanted.reason = arguments.reason;
    wanted.actor = "hold by " + asking_user();
    const auto read = [&](const std::string& text, std::optional<WallTime>& into) -> Result<> {
        if (text.empty()) return {};
        WV_TRY(into, parse_time(text, times));
        return {};
    };
    WV_CHECK(read(arguments.from, wanted.from));
    WV_CHECK(read(arguments.to, wanted.to));
    WV_CHECK(read(arguments.until, wanted.until));
    if (!arguments.lasting.empty()) {
        WV_TRY(const auto lasting, parse_duration(arguments.lasting));
        if (lasting > kLongest)
            return fail(Errc::invalid_argument, "a hold lasts a hundred years at most",
                        "without --for and --until it lasts until it is released");
        wanted.until = times.now + lasting;
    }
    WV_CHECK(check_hold(wanted, times.now));
    return wanted;
}

// "hold by alice", as the ledger says it.
std::string name_in(const std::string& actor) {
    constexpr std::string_view kBegin = "hold by ";
    return actor.starts_with(kBegin) ? actor.substr(kBegin.size()) : actor;
}

int list(const Globals& globals) {
    auto opened = open_view(globals);
    if (!opened) return report(globals, opened.error());
    auto holds = opened->view->holds(opened->cluster.name);
    if (!holds) return report(globals, holds.error());
    const WallTime now = system_clock().now();
    Json all = Json::array();
    Table table({"HOLD", "HOLDS", "UNTIL", "PLACED (" + opened->zone + ")", "BY", "REASON"});
    for (const storage::HoldRecord& hold : *holds) {
        all.push_back(json_of(hold, now));
        const std::string until = hold.until ? format_local(*hold.until, opened->zone, 0) +
                                                   (hold.is_over(now) ? ", over" : "")
                                             : "released";
        table.add_row({hold.id, covered_text(hold, opened->zone), until,
                       format_local(hold.placed_at, opened->zone, 0),
                       printable(name_in(hold.placed_by)), printable(hold.reason)});
    }
    if (globals.output != Output::text) {
        print_answer(globals, Json{{"holds", std::move(all)}});
    } else {
        const std::string text =
            holds->empty() ? "Nothing is held; walvault help hold tells how.\n" : table.text();
        std::fwrite(text.data(), 1, text.size(), stdout);
    }
    return kExitDone;
}

storage::HoldRecord record_of(const HoldWanted& wanted, const std::string& id) {
    return {.id = id,
            .backup_id = wanted.backup_id,
            .from = wanted.from,
            .to = wanted.to,
            .until = wanted.until,
            .reason = wanted.reason,
            .placed_at = system_clock().now(),
            .placed_by = wanted.actor};
}

int tell(const Globals& globals, const storage::HoldRecord& hold, const std::string& zone) {
    if (globals.output != Output::text) {
        Json body = json_of(hold, system_clock().now());
        if (globals.dry_run) body["dry_run"] = true;
        print_answer(globals, body);
        return kExitDone;
    }
    const std::string until =
        hold.until ? "until " + format_local(*hold.until, zone, 0) : "until it is released";
    std::printf("%s %s, %s.\n",
                globals.dry_run ? "Would hold" : ("Hold " + hold.id + " keeps").c_str(),
                covered_text(hold, zone).c_str(), until.c_str());
    return kExitDone;
}

}  // namespace

int verb_hold(const Globals& globals, const HoldArguments& arguments) {
    if (arguments.is_empty()) return list(globals);
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    const std::string zone = display_zone((*server)->time_zone);
    auto wanted = wanted_of(arguments, {system_clock().now(), zone});
    if (!wanted) return report(globals, wanted.error());
    if (globals.dry_run) {
        auto there = require_holdable(*config, (*server)->name, *wanted);
        if (!there) return report(globals, there.error());
        return tell(globals, record_of(*wanted, ""), zone);
    }
    auto id = place(*config, (*server)->name, *wanted);
    if (!id) return report(globals, id.error());
    return tell(globals, record_of(*wanted, *id), zone);
}

int verb_release(const Globals& globals, const ReleaseArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    const Error unsaid{Errc::refused,
                       "nothing was released: what only " + printable(arguments.id) +
                           " keeps expires with the next pass of retention",
                       "if that is meant, say it again with --yes"};
    if (!globals.dry_run && !globals.yes) return report(globals, unsaid);
    if (!globals.dry_run)
        if (auto done = release(*config, (*server)->name, arguments); !done)
            return report(globals, done.error());
    if (globals.output != Output::text) {
        Json body{{"hold_id", arguments.id}, {"released", !globals.dry_run}};
        if (globals.dry_run) body["dry_run"] = true;
        print_answer(globals, body);
        return kExitDone;
    }
    std::printf("%s %s.\n", globals.dry_run ? "Would release" : "Released",
                printable(arguments.id).c_str());
    return kExitDone;
}

}  // namespace walvault::agent
