#include "agent/exit_code.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

struct Row {
    Errc code;
    ExitCode here;
    ExitCode server;
};

TEST_CASE("each error has its exit code, and what the server says or does not answer has its own") {
    const Row rows[] = {
        {Errc::invalid_argument, kExitUsage, kExitUsage},
        {Errc::not_found, kExitFailed, kExitPostgres},
        {Errc::corrupt, kExitCorrupt, kExitCorrupt},
        {Errc::io, kExitRepository, kExitRepository},
        {Errc::no_space, kExitRepository, kExitRepository},
        {Errc::unavailable, kExitFailed, kExitPostgres},
        {Errc::archived, kExitArchived, kExitArchived},
        {Errc::refused, kExitRefused, kExitPostgres},
        {Errc::busy, kExitBusy, kExitPostgres},
        {Errc::wrong_key, kExitKey, kExitKey},
        {Errc::unsupported, kExitUsage, kExitUsage},
        {Errc::outside_window, kExitTarget, kExitTarget},
        {Errc::ambiguous, kExitTarget, kExitTarget},
        {Errc::gap, kExitTarget, kExitTarget},
        {Errc::forked, kExitRefused, kExitRefused},
        {Errc::unusable, kExitPostgres, kExitPostgres},
        {Errc::cancelled, kExitInterrupted, kExitInterrupted},
    };
    CHECK(std::size(rows) == static_cast<std::size_t>(Errc::cancelled) + 1);
    for (const Row& row : rows) {
        CAPTURE(to_string(row.code));
        CHECK(exit_code_for(Error{row.code, "x"}) == row.here);
        CHECK(exit_code_for(Error{row.code, "x", "", Origin::server}) == row.server);
    }
}

}  // namespace
}  // namespace walvault::agent
