// Whether a file may hold a secret: who owns it, and that nobody else can read it.
#pragma once

#include <cstdint>
#include <string>

#include "base/file_system.h"
#include "base/result.h"

namespace walvault::storage {

// `what` begins the message: "the key file /etc/x.key". A file of root with mode 0440 is a systemd
// credential and passes. Errors: wrong_key.
Result<> check_private_file(const FileInfo& info, const std::string& what, const std::string& path,
                            std::uint64_t bytes_max);

}  // namespace walvault::storage
