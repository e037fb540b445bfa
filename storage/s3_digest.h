// Digests that go with an S3 request, by OpenSSL: it uses what the processor has for them.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"

namespace walvault::storage {

std::string sha256_hex(ByteSpan bytes);
// For Content-MD5: a check of the way, not a protection.
std::string md5_base64(ByteSpan bytes);

// The same of bytes that come one after the other.
class BodyDigest {
public:
    explicit BodyDigest(bool with_md5);
    ~BodyDigest();
    void update(ByteSpan bytes);
    // Of all that were given; each once, and nothing may be added afterwards.
    std::string sha256_hex();
    std::string md5_base64();  // empty without it

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace walvault::storage
