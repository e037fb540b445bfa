// Random: the one source of chance of a simulation; the same numbers for the same seed everywhere.
#pragma once

#include <cstdint>
#include <random>

namespace walvault::simulation {

class Random {
public:
    explicit Random(std::uint64_t seed) : engine_(seed * 0x9E3779B97F4A7C15ull + 1) {}

    std::uint64_t number() { return engine_(); }
    // Evenly from [0, count).
    std::uint64_t below(std::uint64_t count) { return engine_() % count; }
    std::uint64_t between(std::uint64_t least, std::uint64_t most) {
        return least + below(most - least + 1);
    }
    bool one_in(std::uint64_t count) { return below(count) == 0; }

private:
    std::mt19937_64 engine_;
};

}  // namespace walvault::simulation
