// A year of hourly bases and WAL under retention and movement; in each run of tests/run some weeks
// of it.
//
//   test_year                         four weeks
//   test_year --hours=8760 --seed=N   a whole year of a seed
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/secret.h"
#include "tests/simulation/year.h"

namespace walvault::simulation {
namespace {

unsigned hours = 24 * 7 * 4;
std::uint64_t seed = 1;

TEST_CASE("each second of the windows is restorable, nothing else is kept, as the rules imply") {
    const auto began = std::chrono::steady_clock::now();
    Year year(seed, hours);
    INFO("seed ", seed);
    CHECK_EQ(year.run(), "");
    const Year::Counts& counts = year.counts();
    CHECK(counts.rewritten > 0);
    CHECK(counts.deleted > 0);
    CHECK(counts.holds > 0);
    CHECK(counts.held_restores > 0);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf(
        "NOTE seed %llu, %u hours in %.1f s: %llu bases, %llu surveys, %llu packs rewritten, "
        "%llu deleted, %llu restores, %llu holds and %llu restores by them, %llu bytes here and "
        "%llu there at the end, at most "
        "%.2f %% off\n",
        static_cast<unsigned long long>(seed), hours, took.count(),
        static_cast<unsigned long long>(counts.bases),
        static_cast<unsigned long long>(counts.surveys),
        static_cast<unsigned long long>(counts.rewritten),
        static_cast<unsigned long long>(counts.deleted),
        static_cast<unsigned long long>(counts.restores),
        static_cast<unsigned long long>(counts.holds),
        static_cast<unsigned long long>(counts.held_restores),
        static_cast<unsigned long long>(counts.here_bytes),
        static_cast<unsigned long long>(counts.there_bytes), 100 * counts.off_most);
}

}  // namespace
}  // namespace walvault::simulation

int main(int count, char** arguments) {
    using namespace walvault::simulation;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        if (argument.starts_with("--hours="))
            hours = static_cast<unsigned>(std::strtoul(arguments[i] + 8, nullptr, 10));
        else if (argument.starts_with("--seed="))
            seed = std::strtoull(arguments[i] + 7, nullptr, 10);
        else
            return std::fprintf(stderr, "test_year [--hours=N] [--seed=N]\n"), 2;
    }
    walvault::require_sodium();  // what it draws for itself is not of a seed
    doctest::Context context;
    return context.run();
}
