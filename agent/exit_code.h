// Exit codes: API that restore_command, systemd and scripts depend on. New ones may come; an
// unknown one is a failure.
#pragma once

#include "base/result.h"

namespace walvault::agent {

enum ExitCode : int {
    kExitDone = 0,
    kExitFailed = 1,
    kExitUsage = 2,         // command line or configuration wrong
    kExitTarget = 3,        // target cannot be restored: window, gap, ambiguous, unknown
    kExitRefused = 4,       // refused to be safe: not empty, running, other system identifier
    kExitCorrupt = 5,       // data fails its check
    kExitRepository = 6,    // repository unreachable, refused or full
    kExitPostgres = 7,      // PostgreSQL unreachable, role or slot wrong
    kExitBusy = 8,          // another job holds the lock
    kExitKey = 9,           // key missing or wrong
    kExitUnconfirmed = 10,  // done, but the outcome could not be confirmed
    kExitArchived = 11,     // objects must be thawed first, which costs and was not agreed to
    kExitInterrupted = 130,
    kExitTerminated = 143,
    kExitWalGetFatal = 200,  // wal-get only: anything but "found" (0) and "proven absent" (1)
};

// The code for an error of a part that has no better one. kExitPostgres is for what the server says
// or does not answer, never for our side.
ExitCode exit_code_for(const Error& error);

}  // namespace walvault::agent
