// The version of this build, from meson.build.
#pragma once

namespace walvault::agent {

inline constexpr const char* kVersion = WALVAULT_VERSION;

}  // namespace walvault::agent
