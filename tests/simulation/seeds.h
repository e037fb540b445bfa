// Seeds: which ones a simulation runs, from its command line, the environment and its fixtures.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace walvault::simulation {

// --first=N, --seeds=M, --seed=N, --search=N. Without --first: WALVAULT_TEST_SEED, so that a
// failure is the change's own; else the clock's seconds times `seeds_a_second`.
struct SeedArguments {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    std::optional<std::uint64_t> one = {};          // to be shown with its log
    std::optional<std::uint64_t> search_from = {};  // until one breaks
};
SeedArguments parse_seed_arguments(int count, char** arguments, std::uint64_t seeds_a_second,
                                   std::uint64_t seed_count);

// The numbers of a file of lines "17  # what it found".
std::vector<std::uint64_t> seeds_in(const char* path);

// Runs the test cases of doctest, after a line that says how a seed of `program` is repeated.
int run_test_cases(const SeedArguments& seeds, const char* program, char** arguments);

}  // namespace walvault::simulation
