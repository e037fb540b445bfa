// Digests that go with an S3 request, by OpenSSL: it uses what the processor has for them.
#pragma once

#include <string>

#include "base/bytes.h"

namespace walvault::storage {

std::string sha256_hex(ByteSpan bytes);
// For Content-MD5: a check of the way, not a protection.
std::string md5_base64(ByteSpan bytes);

}  // namespace walvault::storage
