// Runs seeds: those of seeds.txt, and as many new ones as are asked for.
//
//   test_simulation                       seeds.txt, and 500 new seeds
//   test_simulation --first=N --seeds=M   M seeds from N on
//   test_simulation --seed=N              one, with its log
//   test_simulation --search=N            from N on until one is broken
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/secret.h"
#include "tests/simulation/seeds.h"
#include "tests/simulation/world.h"

namespace walvault::simulation {
namespace {

SeedArguments seeds;
volatile std::uint64_t running_seed = 0;

Outcome run_seed(std::uint64_t seed, bool keeps_log) {
    running_seed = seed;
    World world(seed, keeps_log);
    return world.run();
}

// An assertion of the code under test ends the process: then this line says where to look.
void tell_seed(int signal) {
    char line[96];
    const int length =
        std::snprintf(line, sizeof line, "\nseed %llu ended the process: signal %d\n",
                      static_cast<unsigned long long>(running_seed), signal);
    (void)!::write(STDERR_FILENO, line, static_cast<std::size_t>(length));
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

int show_one(std::uint64_t seed) {
    const Outcome outcome = run_seed(seed, true);
    std::fputs(outcome.log.c_str(), stdout);
    std::printf(
        "seed %llu: %llu steps, %llu starts of an agent, %llu looks at what a power cut "
        "leaves\n%s\n",
        static_cast<unsigned long long>(seed), static_cast<unsigned long long>(outcome.steps),
        static_cast<unsigned long long>(outcome.restarts),
        static_cast<unsigned long long>(outcome.checks),
        outcome.broken.empty() ? "all held" : ("BROKEN: " + outcome.broken).c_str());
    return outcome.broken.empty() ? 0 : 1;
}

int search_from(std::uint64_t first) {
    for (std::uint64_t seed = first; seed < first + 100'000; ++seed) {
        const Outcome outcome = run_seed(seed, false);
        if (outcome.broken.empty()) continue;
        std::printf("seed %llu, the %llu-th: %s\n", static_cast<unsigned long long>(seed),
                    static_cast<unsigned long long>(seed - first + 1), outcome.broken.c_str());
        return 1;
    }
    return 0;
}

TEST_CASE("what earlier seeds found stays found") {
    for (std::uint64_t seed : seeds_in(WALVAULT_SEEDS)) {
        INFO("seed ", seed);
        CHECK_EQ(run_seed(seed, false).broken, "");
    }
}

TEST_CASE("one seed is one run") {
    for (std::uint64_t seed = seeds.first; seed < seeds.first + 3; ++seed) {
        const Outcome one = run_seed(seed, true);
        const Outcome other = run_seed(seed, true);
        INFO("seed ", seed);
        CHECK(one.log == other.log);
        CHECK_EQ(one.log_hash, other.log_hash);
    }
}

TEST_CASE("every seed keeps the promises") {
    const auto began = std::chrono::steady_clock::now();
    std::uint64_t steps = 0, restarts = 0, checks = 0, failed = 0;
    for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
        const Outcome outcome = run_seed(seed, false);
        steps += outcome.steps;
        restarts += outcome.restarts;
        checks += outcome.checks;
        if (!outcome.broken.empty() && ++failed > 20) continue;
        INFO("seed ", seed);
        CHECK_EQ(outcome.broken, "");
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf(
        "NOTE %llu seeds from %llu in %.1f s, %llu broken: %llu steps, %llu starts, %llu looks\n",
        static_cast<unsigned long long>(seeds.count), static_cast<unsigned long long>(seeds.first),
        took.count(), static_cast<unsigned long long>(failed),
        static_cast<unsigned long long>(steps), static_cast<unsigned long long>(restarts),
        static_cast<unsigned long long>(checks));
}

}  // namespace
}  // namespace walvault::simulation

int main(int count, char** arguments) {
    using namespace walvault::simulation;
    seeds = parse_seed_arguments(count, arguments, 1000, 500);
    walvault::require_sodium();  // what it draws for itself is not of a seed
    std::signal(SIGABRT, tell_seed);
    std::signal(SIGSEGV, tell_seed);
    if (seeds.one) return show_one(*seeds.one);
    if (seeds.search_from) return search_from(*seeds.search_from);
    return run_test_cases(seeds, "test_simulation", arguments);
}
