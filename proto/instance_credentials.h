// What the metadata service of a machine at Amazon says of the keys of its role. Pure.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret.h"

namespace walvault {

struct InstanceCredentials {
    std::string access_key;
    SecretBytes secret_key;
    SecretBytes session_token;
};

// The JSON of /latest/meta-data/iam/security-credentials/ROLE. Nothing of it is in an error.
// Errors: corrupt.
Result<InstanceCredentials> parse_instance_credentials(ByteSpan body);

}  // namespace walvault
