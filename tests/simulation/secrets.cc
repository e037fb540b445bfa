#include "tests/simulation/secrets.h"

#include <sodium.h>

namespace walvault::simulation {
namespace {

Random* secrets = nullptr;

std::uint32_t secret_number() { return static_cast<std::uint32_t>(secrets->number()); }
void secret_bytes(void* into, std::size_t count) {
    auto* bytes = static_cast<unsigned char*>(into);
    for (std::size_t i = 0; i < count; ++i)
        bytes[i] = static_cast<unsigned char>(secrets->number());
}
const char* name_of_generator() { return "seeded"; }
randombytes_implementation generator{.implementation_name = name_of_generator,
                                     .random = secret_number,
                                     .stir = nullptr,
                                     .uniform = nullptr,
                                     .buf = secret_bytes,
                                     .close = nullptr};

}  // namespace

SeededSecrets::SeededSecrets(std::uint64_t seed) : random_(~seed) {
    secrets = &random_;
    randombytes_set_implementation(&generator);
}

SeededSecrets::~SeededSecrets() { secrets = nullptr; }

}  // namespace walvault::simulation
