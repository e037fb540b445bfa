// SeededSecrets: ids, nonces and keys are of the seed too, while it lives.
#pragma once

#include "tests/simulation/random.h"

namespace walvault::simulation {

class SeededSecrets {
public:
    explicit SeededSecrets(std::uint64_t seed);
    ~SeededSecrets();
    SeededSecrets(const SeededSecrets&) = delete;
    SeededSecrets& operator=(const SeededSecrets&) = delete;

private:
    Random random_;
};

}  // namespace walvault::simulation
