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
// The servers that the settings name, in libpq's order; the default one where they name none.
std::vector<ServerAddress> servers_of(const ConnectSettings& settings);
// Instead of the servers that the settings name. `servers` is not empty.
void set_servers(ConnectSettings& settings, const std::vector<ServerAddress>& servers);
// "b:5432"; a directory or a default as it is.
std::string to_string(const ServerAddress& server);
// Whether both lead to one place; what is left to libpq's default in one fits anything.
bool same_server(const ServerAddress& a, const ServerAddress& b);

// How long connecting may take: connect_timeout of the conninfo where it is given, else the option.
std::chrono::seconds connect_timeout_of(const ConnectSettings& settings,
                                        std::chrono::seconds otherwise);

}  // namespace walvault::wal
