#include "base/secret.h"

#include <sodium.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cstring>

#include "base/invariant.h"

namespace walvault {

void require_sodium() { WV_ASSERT(sodium_init() >= 0); }

std::uint64_t random_number() {
    require_sodium();
    std::uint64_t number = 0;
    randombytes_buf(&number, sizeof number);
    return number;
}

void forbid_core_dumps() {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
}

void wipe(MutableByteSpan bytes) { sodium_memzero(bytes.data(), bytes.size()); }

SecretBytes::SecretBytes(std::size_t size) : size_(size) {
    require_sodium();
    data_ = static_cast<std::byte*>(sodium_malloc(size));
    WV_ASSERT(data_ != nullptr);
    std::memset(data_, 0, size);
}

SecretBytes SecretBytes::copy_of(ByteSpan bytes) {
    SecretBytes secret(bytes.size());
    if (!bytes.empty()) std::memcpy(secret.data_, bytes.data(), bytes.size());
    return secret;
}

SecretBytes::~SecretBytes() {
    if (data_ != nullptr) sodium_free(data_);
}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
    if (this != &other) {
        if (data_ != nullptr) sodium_free(data_);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

}  // namespace walvault
