// walvault point NAME: a named restore point on the server; --list shows those that are stored.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/server_call.h"
#include "wal/server_facts.h"

namespace walvault::agent {
namespace {

int list(const Globals& globals) {
    auto opened = open_view(globals);
    if (!opened) return report(globals, opened.error());
    auto marks = opened->view->marks(opened->cluster.name, {}, {}, {pb::MarkEntry::RESTORE_POINT});
    if (!marks) return report(globals, marks.error());
    nlohmann::json points = nlohmann::json::array();
    Table table({"TIME (" + opened->zone + ")", "LSN", "NAME"});
    for (const storage::MarkRecord& record : *marks) {
        WallTime at{Micros(record.mark.at_us())};
        table.add_row({format_local(at, opened->zone, 6), to_string(Lsn{record.mark.start_lsn()}),
                       printable(record.mark.name())});
        points.push_back({{"name", record.mark.name()},
                          {"at", to_utc_text(at)},
                          {"lsn", to_string(Lsn{record.mark.start_lsn()})}});
    }
    if (globals.output == Output::text)
        std::fputs(table.text().c_str(), stdout);
    else
        print_answer(globals, nlohmann::json{{"points", points}});
    return kExitDone;
}

}  // namespace

int verb_point(const Globals& globals, const PointArguments& arguments) {
    if (arguments.list) return list(globals);
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    if (globals.dry_run) {
        if (globals.output != Output::text) {
            print_answer(globals, nlohmann::json{{"dry_run", true}, {"name", arguments.name}});
            return kExitDone;
        }
        std::printf("Would create the restore point \"%s\".\n", printable(arguments.name).c_str());
        return kExitDone;
    }
    Lsn at;
    wal::Connection::Options options;
    options.conninfo = (*server)->conninfo;
    // A standby makes none.
    options.writable = true;
    auto created = call_server(options, [&](wal::Connection& sql) -> Task<Result<>> {
        WV_CO_TRY(at, co_await wal::create_restore_point(sql, arguments.name));
        co_return Result<>();
    });
    if (!created) return report(globals, created.error());
    if (globals.output != Output::text) {
        print_answer(globals, nlohmann::json{{"name", arguments.name}, {"lsn", to_string(at)}});
    } else {
        std::printf(
            "Restore point \"%s\" at %s. To go back to it: walvault restore --to 'name:%s' "
            "--pgdata DIR\n",
            printable(arguments.name).c_str(), to_string(at).c_str(),
            printable(arguments.name).c_str());
    }
    return kExitDone;
}

}  // namespace walvault::agent
