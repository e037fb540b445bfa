// The tests of a simulation tell themselves which seed ended the process.
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/simulation/seeds.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace walvault::simulation {

SeedArguments parse_seed_arguments(int count, char** arguments, std::uint64_t seeds_a_second,
                                   std::uint64_t seed_count) {
    SeedArguments seeds{
        .first = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() /
                                            std::chrono::seconds(1)) *
                 seeds_a_second,
        .count = seed_count};
    if (const char* fixed = std::getenv("WALVAULT_TEST_SEED"))
        seeds.first = std::strtoull(fixed, nullptr, 10);
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        const std::size_t equals = std::min(argument.find('='), argument.size());
        const std::string name = argument.substr(0, equals);
        const std::uint64_t value =
            std::strtoull(argument.c_str() + std::min(equals + 1, argument.size()), nullptr, 10);
        if (name == "--seed") seeds.one = value;
        if (name == "--search") seeds.search_from = value;
        if (name == "--first") seeds.first = value;
        if (name == "--seeds") seeds.count = value;
    }
    return seeds;
}

std::vector<std::uint64_t> seeds_in(const char* path) {
    std::vector<std::uint64_t> seeds;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line.substr(0, line.find('#')));
        std::uint64_t seed = 0;
        if (words >> seed) seeds.push_back(seed);
    }
    return seeds;
}

int run_test_cases(const SeedArguments& seeds, const char* program, char** arguments) {
    std::printf("NOTE seeds from %llu on; repeat one with %s --seed=N\n",
                static_cast<unsigned long long>(seeds.first), program);
    std::fflush(stdout);
    doctest::Context context;
    context.applyCommandLine(1, arguments);
    return context.run();
}

}  // namespace walvault::simulation

// The ledger names the process: where the number has another length, so has every entry behind it.
extern "C" pid_t getpid() noexcept { return 4242; }

// Guard pages and locked memory for each of some hundred keys of a seed are a sixth of its time.
extern "C" void* sodium_malloc(std::size_t size) noexcept { return std::malloc(size); }
extern "C" void sodium_free(void* memory) noexcept { std::free(memory); }
