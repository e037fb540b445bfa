// The command line as values: which verb with which arguments; parsing only, nothing is run.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "agent/verbs.h"

namespace walvault::agent {

struct VersionArguments {};
// Help that was asked for, ready to be printed.
struct HelpText {
    std::string text;
};

using VerbArguments =
    std::variant<RunArguments, InitArguments, BackupArguments, StatusArguments, InfoArguments,
                 LogArguments, ResolveArguments, RestoreArguments, WalGetArguments, VerifyArguments,
                 ExpireArguments, HoldArguments, ReleaseArguments, PointArguments, KeyArguments,
                 ConfigArguments, RepoArguments, CheckArguments, DetachArguments, DemoArguments,
                 RowHistoryArguments, ChangesArguments, ShowArguments, RowsArguments,
                 ExtractArguments, UndoArguments, FollowArguments, VersionArguments, HelpText>;

struct CommandLine {
    Globals globals;
    VerbArguments arguments;
};

// `arguments` without the program's name. Global flags may stand before or after the verb. On an
// error `globals` holds what was understood until then (-o json, so that the error can be told in
// that form). Errors: invalid_argument.
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments,
                                       const std::map<std::string, std::string>& environment,
                                       Globals& globals);

// True if `arguments` ask for wal-get, whatever else is wrong with them: its exit codes are its
// own.
bool is_wal_get(const std::vector<std::string>& arguments);

}  // namespace walvault::agent
