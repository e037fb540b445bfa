// What each verb of the command line begins with, and how a wrong use of one is told.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/result.h"

namespace walvault::agent {

// A verb that `app` owns, as CLI11 does with its subcommands; its help ends with the example.
inline CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& what,
                          const std::string& example) {
    CLI::App* verb = app.add_subcommand(name, what);
    verb->footer("Example:\n  " + example);
    return verb;
}

// What was wrong with the command line, and what to write instead: invalid_argument.
inline tl::unexpected<Error> usage(std::string message, std::string hint = {}) {
    return fail(Errc::invalid_argument, std::move(message), std::move(hint));
}

}  // namespace walvault::agent
