// Runs interleavings of retention, base backups, restores and offloading: those of
// keeping_seeds.txt, and as many new ones as are asked for.
//
//   test_keeping                       keeping_seeds.txt, and 500 new seeds
//   test_keeping --first=N --seeds=M   M seeds from N on
//   test_keeping --seed=N              one, with its log
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>

#include "base/secret.h"
#include "tests/simulation/keeping.h"
#include "tests/simulation/seeds.h"

namespace walvault::simulation {
namespace {

SeedArguments seeds;

KeepingOutcome run_seed(std::uint64_t seed, bool keeps_log) {
    Keeping keeping(seed, keeps_log);
    return keeping.run();
}

int show_one(std::uint64_t seed) {
    const KeepingOutcome outcome = run_seed(seed, true);
    std::fputs(outcome.log.c_str(), stdout);
    std::printf("%s\n", outcome.broken.empty() ? "all held" : "");
    return outcome.broken.empty() ? 0 : 1;
}

TEST_CASE("what earlier seeds found stays found") {
    for (std::uint64_t seed : seeds_in(WALVAULT_KEEPING_SEEDS)) {
        INFO("seed ", seed);
        CHECK_EQ(run_seed(seed, false).broken, "");
    }
}

TEST_CASE("one seed is one run") {
    for (std::uint64_t seed = seeds.first; seed < seeds.first + 3; ++seed) {
        INFO("seed ", seed);
        CHECK(run_seed(seed, true).log == run_seed(seed, true).log);
    }
}

TEST_CASE("in no interleaving of collector, backup, restore and offload a chunk is lost") {
    const auto began = std::chrono::steady_clock::now();
    std::map<std::string, std::uint64_t> counts;
    std::uint64_t failed = 0;
    for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
        const KeepingOutcome outcome = run_seed(seed, false);
        for (const auto& [name, count] : outcome.counts)
            counts[name] += count;
        if (outcome.broken.empty() || ++failed > 20) continue;
        INFO("seed ", seed);
        CHECK_EQ(outcome.broken, "");
    }
    CHECK_EQ(failed, 0);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("NOTE %llu interleavings from seed %llu in %.1f s, %llu broken:",
                static_cast<unsigned long long>(seeds.count),
                static_cast<unsigned long long>(seeds.first), took.count(),
                static_cast<unsigned long long>(failed));
    for (const auto& [name, count] : counts)
        std::printf(" %s %llu;", name.c_str(), static_cast<unsigned long long>(count));
    std::printf("\n");
}

}  // namespace
}  // namespace walvault::simulation

int main(int count, char** arguments) {
    using namespace walvault::simulation;
    seeds = parse_seed_arguments(count, arguments, 100'000, 500);
    walvault::require_sodium();  // what it draws for itself is not of a seed
    if (seeds.one) return show_one(*seeds.one);
    return run_test_cases(seeds, "test_keeping", arguments);
}
