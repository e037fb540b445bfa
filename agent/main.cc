#include <csignal>
#include <cstdio>
#include <exception>

#include "agent/verbs.h"
#include "base/secret.h"

int main(int argc, char** argv) {
    walvault::require_sodium();
    walvault::forbid_core_dumps();
    // A closed socket or pipe is an error value where it is written to, not the end of the process.
    std::signal(SIGPIPE, SIG_IGN);
    try {
        return walvault::agent::run_command_line(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        for (int i = 1; i < argc; ++i)
            if (std::string_view(argv[i]) == "wal-get") return walvault::agent::kExitWalGetFatal;
        return walvault::agent::kExitFailed;
    }
}
