// The keys of [archive]: how a restore thaws, and what that costs. As ConfigKey::set.
#pragma once

#include <string>

#include "agent/config.h"

namespace walvault::agent {

Result<> set_thaw_speed(Config& config, ServerConfig*, const std::string& text);
Result<> set_thaw_days(Config& config, ServerConfig*, const std::string& text);
Result<> set_poll_interval(Config& config, ServerConfig*, const std::string& text);
Result<> set_currency(Config& config, ServerConfig*, const std::string& text);
Result<> set_prices(Config& config, ServerConfig*, const std::string& text);
Result<> set_egress(Config& config, ServerConfig*, const std::string& text);

}  // namespace walvault::agent
