// Runs interleavings of retention, base backups, restores and offloading: those of
// keeping_seeds.txt, and as many new ones as are asked for.
//
//   test_keeping                       keeping_seeds.txt, and 1,000 new seeds
//   test_keeping --first=N --seeds=M   M seeds from N on
//   test_keeping --seed=N              one, with its log
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/secret.h"
#include "tests/simulation/keeping.h"

namespace walvault::simulation {
namespace {

std::uint64_t first_seed = 0;
std::uint64_t seed_count = 1'000;

KeepingOutcome run_seed(std::uint64_t seed, bool keeps_log) {
    Keeping keeping(seed, keeps_log);
    return keeping.run();
}

// "17  # what it found": the number counts.
std::vector<std::uint64_t> fixture_seeds() {
    std::vector<std::uint64_t> seeds;
    std::ifstream file(WALVAULT_KEEPING_SEEDS);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line.substr(0, line.find('#')));
        std::uint64_t seed = 0;
        if (words >> seed) seeds.push_back(seed);
    }
    return seeds;
}

int show_one(std::uint64_t seed) {
    const KeepingOutcome outcome = run_seed(seed, true);
    std::fputs(outcome.log.c_str(), stdout);
    std::printf("%s\n", outcome.broken.empty() ? "all held" : "");
    return outcome.broken.empty() ? 0 : 1;
}

TEST_CASE("what earlier seeds found stays found") {
    for (std::uint64_t seed : fixture_seeds()) {
        INFO("seed ", seed);
        CHECK_EQ(run_seed(seed, false).broken, "");
    }
}

TEST_CASE("one seed is one run") {
    for (std::uint64_t seed = first_seed; seed < first_seed + 3; ++seed) {
        INFO("seed ", seed);
        CHECK(run_seed(seed, true).log == run_seed(seed, true).log);
    }
}

TEST_CASE("in no interleaving of collector, backup, restore and offload a chunk is lost") {
    const auto began = std::chrono::steady_clock::now();
    std::map<std::string, std::uint64_t> counts;
    std::uint64_t failed = 0;
    for (std::uint64_t seed = first_seed; seed < first_seed + seed_count; ++seed) {
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
                static_cast<unsigned long long>(seed_count),
                static_cast<unsigned long long>(first_seed), took.count(),
                static_cast<unsigned long long>(failed));
    for (const auto& [name, count] : counts)
        std::printf(" %s %llu;", name.c_str(), static_cast<unsigned long long>(count));
    std::printf("\n");
}

}  // namespace
}  // namespace walvault::simulation

// The ledger names the process: where the number has another length, so has every entry behind it.
extern "C" pid_t getpid() noexcept { return 4242; }

int main(int count, char** arguments) {
    using namespace walvault::simulation;
    first_seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() /
                                            std::chrono::seconds(1) * 100'000);
    // Where a failure is to be the change's own, the seeds are the same each time.
    if (const char* fixed = std::getenv("WALVAULT_TEST_SEED"))
        first_seed = std::strtoull(fixed, nullptr, 10);
    walvault::require_sodium();  // what it draws for itself is not of a seed
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        const std::size_t equals = std::min(argument.find('='), argument.size());
        const std::string name = argument.substr(0, equals);
        const std::uint64_t value =
            std::strtoull(argument.c_str() + std::min(equals + 1, argument.size()), nullptr, 10);
        if (name == "--seed") return show_one(value);
        if (name == "--first") first_seed = value;
        if (name == "--seeds") seed_count = value;
    }
    std::printf("NOTE seeds from %llu on; repeat one with test_keeping --seed=N\n",
                static_cast<unsigned long long>(first_seed));
    std::fflush(stdout);
    doctest::Context context;
    context.applyCommandLine(1, arguments);
    return context.run();
}
