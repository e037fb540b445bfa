#include "base/sha256.h"

#include <sodium.h>

#include "base/secret.h"

namespace walvault {

struct Sha256::State {
    crypto_hash_sha256_state hash;
    bool finished = false;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
    require_sodium();
    crypto_hash_sha256_init(&state_->hash);
}
Sha256::~Sha256() = default;

void Sha256::update(ByteSpan bytes) {
    WV_ASSERT(!state_->finished);
    crypto_hash_sha256_update(&state_->hash, reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size());
}

Id32 Sha256::finish() {
    WV_ASSERT(!state_->finished);
    state_->finished = true;
    Id32 digest;
    static_assert(sizeof digest == crypto_hash_sha256_BYTES);
    crypto_hash_sha256_final(&state_->hash, reinterpret_cast<unsigned char*>(digest.data()));
    return digest;
}

}  // namespace walvault
