// Connection strings as libpq's keywords and values, with what this program demands set.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "wal/connection.h"

namespace walvault::wal {

using ConnectSettings = std::vector<std::pair<std::string, std::string>>;

// Errors: invalid_argument. The text of the error holds nothing of a conninfo that has a password.
Result<ConnectSettings> connect_settings(const Connection::Options& options);
// How long connecting may take: connect_timeout of the conninfo where it is given, else the option.
std::chrono::seconds connect_timeout_of(const ConnectSettings& settings,
                                        std::chrono::seconds otherwise);

}  // namespace walvault::wal
