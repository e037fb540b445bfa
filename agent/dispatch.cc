// run_command_line: from argc and argv to a verb and back to an exit code.
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "agent/command_line.h"
#include "agent/operating_user.h"
#include "agent/version.h"

extern char** environ;

namespace walvault::agent {
namespace {

int print(const std::string& text) {
    bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    return written ? kExitDone : kExitFailed;
}

int print_version(const Globals& globals) {
    if (globals.output == Output::text) return print(std::string("walvault ") + kVersion + '\n');
    return print(nlohmann::ordered_json{{"version", kVersion}, {"config_version", 1}}.dump() +
                 '\n');
}

// restore_command runs without our PATH, from another directory: only an absolute path serves.
std::string own_path() {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    return length > 0 && length < PATH_MAX ? std::string(path, static_cast<std::size_t>(length))
                                           : "walvault";
}

std::map<std::string, std::string> environment_of_process() {
    std::map<std::string, std::string> variables;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        std::string text = *entry;
        std::size_t equals = text.find('=');
        if (equals != std::string::npos)
            variables.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    return variables;
}

struct RunVerb {
    const Globals& globals;
    int operator()(const RunArguments& a) const { return verb_run(globals, a); }
    int operator()(const InitArguments& a) const { return verb_init(globals, a); }
    int operator()(const BackupArguments& a) const { return verb_backup(globals, a); }
    int operator()(const StatusArguments& a) const { return verb_status(globals, a); }
    int operator()(const InfoArguments& a) const { return verb_info(globals, a); }
    int operator()(const LogArguments& a) const { return verb_log(globals, a); }
    int operator()(const ResolveArguments& a) const { return verb_resolve(globals, a); }
    int operator()(const RestoreArguments& a) const { return verb_restore(globals, a); }
    int operator()(const WalGetArguments& a) const { return verb_wal_get(globals, a); }
    int operator()(const VerifyArguments& a) const { return verb_verify(globals, a); }
    int operator()(const ExpireArguments& a) const { return verb_expire(globals, a); }
    int operator()(const HoldArguments& a) const { return verb_hold(globals, a); }
    int operator()(const ReleaseArguments& a) const { return verb_release(globals, a); }
    int operator()(const PointArguments& a) const { return verb_point(globals, a); }
    int operator()(const KeyArguments& a) const { return verb_key(globals, a); }
    int operator()(const ConfigArguments& a) const { return verb_config(globals, a); }
    int operator()(const RepoArguments& a) const { return verb_repo(globals, a); }
    int operator()(const CheckArguments& a) const { return verb_check(globals, a); }
    int operator()(const DetachArguments& a) const { return verb_detach(globals, a); }
    int operator()(const DemoArguments& a) const { return verb_demo(globals, a); }
    int operator()(const RowHistoryArguments& a) const { return verb_history(globals, a); }
    int operator()(const ChangesArguments& a) const { return verb_changes(globals, a); }
    int operator()(const ShowArguments& a) const { return verb_show(globals, a); }
    int operator()(const RowsArguments& a) const { return verb_rows(globals, a); }
    int operator()(const ExtractArguments& a) const { return verb_extract(globals, a); }
    int operator()(const UndoArguments& a) const { return verb_undo(globals, a); }
    int operator()(const FollowArguments& a) const { return verb_follow(globals, a); }
    int operator()(const VersionArguments&) const { return print_version(globals); }
    int operator()(const HelpText& help) const { return print(help.text); }
};

// These give files to others, start servers, or make what is not there yet: root stays root.
bool needs_root(const VerbArguments& arguments) {
    return std::holds_alternative<InitArguments>(arguments) ||
           std::holds_alternative<RestoreArguments>(arguments) ||
           std::holds_alternative<DemoArguments>(arguments) ||
           std::holds_alternative<KeyArguments>(arguments);
}

}  // namespace

int run_command_line(int argc, char** argv) {
    std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    Globals globals;
    globals.program = own_path();
    const auto environment = environment_of_process();
    auto parsed = parse_command_line(arguments, environment, globals);
    if (!parsed)
        return report(globals, parsed.error(),
                      is_wal_get(arguments) ? kExitWalGetFatal : kExitUsage);
    if (!needs_root(parsed->arguments) &&
        (parsed->globals.from.empty() || parsed->globals.from_is_name()))
        if (auto became = become_repository_owner(parsed->globals.config_path, environment);
            !became)
            return report(parsed->globals, became.error(),
                          is_wal_get(arguments) ? std::optional(kExitWalGetFatal) : std::nullopt);
    return std::visit(RunVerb{parsed->globals}, parsed->arguments);
}

}  // namespace walvault::agent
