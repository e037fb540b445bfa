// The names an object can have, the same in every kind of store.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace walvault::storage {

// Neither empty, hidden, unfinished (".tmp"), longer than 200 bytes, nor with control characters.
bool is_plain_name_component(std::string_view component);
// Plain components separated by '/', at most 1,000 bytes: so neither "..", nor absolute.
bool is_object_name(std::string_view name);
// Errors: invalid_argument, with the name as far as it can be shown.
Result<> check_object_name(const std::string& name);
// What every name of a list begins with: its directory is a name. Errors: invalid_argument.
Result<> check_object_prefix(const std::string& prefix);

}  // namespace walvault::storage
