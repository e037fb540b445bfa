#include "agent/exit_code.h"

namespace walvault::agent {

ExitCode exit_code_for(const Error& error) {
    const bool server = error.origin == Origin::server;
    switch (error.code) {
        case Errc::invalid_argument:
            return kExitUsage;
        case Errc::unsupported:
            return kExitUsage;
        case Errc::not_found:
            return server ? kExitPostgres : kExitFailed;
        case Errc::corrupt:
            return kExitCorrupt;
        case Errc::io:
            return kExitRepository;
        case Errc::no_space:
            return kExitRepository;
        case Errc::unavailable:
            return server ? kExitPostgres : kExitFailed;
        case Errc::archived:
            return kExitArchived;
        case Errc::refused:
            return server ? kExitPostgres : kExitRefused;
        case Errc::busy:
            return server ? kExitPostgres : kExitBusy;
        case Errc::wrong_key:
            return kExitKey;
        case Errc::outside_window:
            return kExitTarget;
        case Errc::ambiguous:
            return kExitTarget;
        case Errc::gap:
            return kExitTarget;
        case Errc::forked:
            return kExitRefused;
        case Errc::unusable:
            return kExitPostgres;
        case Errc::cancelled:
            return kExitInterrupted;
    }
    return kExitFailed;
}

}  // namespace walvault::agent
