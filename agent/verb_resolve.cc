#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/stop_point_text.h"
#include "agent/verbs.h"

namespace walvault::agent {
namespace {

Result<> resolve_and_print(const Globals& globals, const ResolveArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    const TimeContext times{system_clock().now(), opened.zone};
    WV_TRY(Target target, parse_target(arguments.target, arguments.before, times));
    const ResolveContext context = resolve_context(opened, times.now, arguments.history);
    WV_TRY(StopPoint stop, resolve_target(*opened.view, target, context));
    if (globals.output != Output::text) {
        nlohmann::ordered_json json = stop_point_json(stop);
        json["server"] = opened.cluster.name;
        print_answer(globals, json);
        return {};
    }
    const std::string text = stop_point_text(stop, opened.zone) + "  restore    walvault restore " +
                             (target.before ? "--before '" : "--to '") + printable(target.text) +
                             "' --pgdata DIR" + source_options(globals) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
    return {};
}

}  // namespace

int verb_resolve(const Globals& globals, const ResolveArguments& arguments) {
    if (auto done = resolve_and_print(globals, arguments); !done)
        return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
