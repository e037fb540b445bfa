// What the values of more than one key are made of. Errors: invalid_argument with what is wrong
// about the value, without its place.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace walvault::agent {

tl::unexpected<Error> wrong_value(std::string message, std::string hint = {});
Result<int> parse_integer(const std::string& text, int least, int most);
Result<std::chrono::milliseconds> duration_between(const std::string& text,
                                                   std::chrono::milliseconds least,
                                                   std::chrono::milliseconds most);
Result<std::uint64_t> size_between(const std::string& text, std::uint64_t least,
                                   std::uint64_t most);

}  // namespace walvault::agent
