#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/render.h"
#include "agent/verbs.h"

namespace walvault::agent {
namespace {

// Every line under the first is indented, so that an error of several lines still reads as one.
std::string labelled(const std::string& label, std::string_view text) {
    std::string out = label + ": ";
    for (std::size_t from = 0;;) {
        std::size_t to = text.find('\n', from);
        out += printable(text.substr(from, to - from));
        out += '\n';
        if (to == std::string_view::npos) return out;
        out.append(label.size() + 2, ' ');
        from = to + 1;
    }
}

}  // namespace

int report(const Globals& globals, const Error& error, std::optional<ExitCode> code) {
    ExitCode exit = code.value_or(exit_code_for(error));
    std::string text;
    if (globals.output == Output::json || globals.output == Output::jsonl) {
        nlohmann::ordered_json body{{"code", to_string(error.code)},
                                    {"exit", static_cast<int>(exit)},
                                    {"message", error.message},
                                    {"hint", error.hint}};
        nlohmann::ordered_json whole{{"error", body}};
        text = whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
    } else {
        Style style = Style::of(globals, fileno(stderr));
        std::string first = labelled("error", error.message);
        text = style.bad(first.substr(0, 5)) + first.substr(5);
        if (!error.hint.empty()) text += labelled("hint", error.hint);
    }
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
    return exit;
}

int report_signal(const Globals& globals, int signal) {
    Error error{Errc::cancelled, "stopped by a signal before it was done"};
    return report(globals, error, signal == SIGINT ? kExitInterrupted : kExitTerminated);
}

}  // namespace walvault::agent
