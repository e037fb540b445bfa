// Keys of a machine at Amazon: those of its role, from the metadata service (IMDSv2).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "storage/s3_signer.h"

namespace walvault::storage {

// Whether this may be asked for keys: empty, for the address that Amazon gives it, or
// "http://127.0.0.1:PORT".
bool is_instance_service(std::string_view url);

// Blocks for up to some seconds. Errors: unavailable, where the service does not answer or refuses;
// wrong_key, where the machine has no role, or one without keys.
Result<S3Credentials> read_instance_credentials(const std::string& url);

}  // namespace walvault::storage
