// Runs seeds: those of seeds.txt, and as many new ones as are asked for.
//
//   test_simulation                         seeds.txt, and 500 new seeds from one that the clock
//   gives test_simulation --first=N --seeds=M     M seeds from N on test_simulation --seed=N one,
//   with its log test_simulation --search=N              seeds from N on until one is broken
#define DOCTEST_CONFIG_IMPLEMENT
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/secret.h"
#include "tests/simulation/world.h"

namespace walvault::simulation {
namespace {

std::uint64_t first_seed = 0;
std::uint64_t seed_count = 500;
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

// "17  # what it found": the number counts.
std::vector<std::uint64_t> fixture_seeds() {
    std::vector<std::uint64_t> seeds;
    std::ifstream file(WALVAULT_SEEDS);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line.substr(0, line.find('#')));
        std::uint64_t seed = 0;
        if (words >> seed) seeds.push_back(seed);
    }
    return seeds;
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
    for (std::uint64_t seed : fixture_seeds()) {
        INFO("seed ", seed);
        CHECK_EQ(run_seed(seed, false).broken, "");
    }
}

TEST_CASE("one seed is one run") {
    for (std::uint64_t seed = first_seed; seed < first_seed + 3; ++seed) {
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
    for (std::uint64_t seed = first_seed; seed < first_seed + seed_count; ++seed) {
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
        static_cast<unsigned long long>(seed_count), static_cast<unsigned long long>(first_seed),
        took.count(), static_cast<unsigned long long>(failed),
        static_cast<unsigned long long>(steps), static_cast<unsigned long long>(restarts),
        static_cast<unsigned long long>(checks));
}

}  // namespace
}  // namespace walvault::simulation

// The ledger names the process: where the number has another length, so has every entry behind it.
extern "C" pid_t getpid() noexcept { return 4242; }

int main(int count, char** arguments) {
    using namespace walvault::simulation;
    first_seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() /
                                            std::chrono::seconds(1) * 1000);
    // Where a failure is to be the change's own, the seeds are the same each time.
    if (const char* fixed = std::getenv("WALVAULT_TEST_SEED"))
        first_seed = std::strtoull(fixed, nullptr, 10);
    walvault::require_sodium();  // what it draws for itself is not of a seed
    std::signal(SIGABRT, tell_seed);
    std::signal(SIGSEGV, tell_seed);
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        const std::size_t equals = std::min(argument.find('='), argument.size());
        const std::string name = argument.substr(0, equals);
        const std::uint64_t value =
            std::strtoull(argument.c_str() + std::min(equals + 1, argument.size()), nullptr, 10);
        if (name == "--seed") return show_one(value);
        if (name == "--search") return search_from(value);
        if (name == "--first") first_seed = value;
        if (name == "--seeds") seed_count = value;
    }
    std::printf("NOTE seeds from %llu on; repeat one with test_simulation --seed=N\n",
                static_cast<unsigned long long>(first_seed));
    std::fflush(stdout);
    doctest::Context context;
    context.applyCommandLine(1, arguments);
    return context.run();
}
