// Paths inside archives and manifests, which come from outside and become paths on this machine.
#pragma once

#include <string_view>

namespace walvault {

// Relative, 1 to 1,000 bytes, no NUL, no empty, "." or ".." component.
bool is_safe_relative_path(std::string_view path);

}  // namespace walvault
