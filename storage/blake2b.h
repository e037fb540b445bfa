// BLAKE2b over pieces, keyed or not: the one hash of the repository.
#pragma once

#include <sodium.h>

#include <initializer_list>

#include "base/bytes.h"

namespace walvault::storage {

inline unsigned char* raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
inline const unsigned char* raw(const std::byte* bytes) {
    return reinterpret_cast<const unsigned char*>(bytes);
}

// `out` has 16 to 64 bytes and its size is part of the hash; an empty key means unkeyed.
inline void blake2b(MutableByteSpan out, ByteSpan key, std::initializer_list<ByteSpan> pieces) {
    crypto_generichash_state state;
    crypto_generichash_init(&state, key.empty() ? nullptr : raw(key.data()), key.size(),
                            out.size());
    for (ByteSpan piece : pieces)
        crypto_generichash_update(&state, raw(piece.data()), piece.size());
    crypto_generichash_final(&state, raw(out.data()), out.size());
    sodium_memzero(&state, sizeof state);
}

inline bool equal_in_constant_time(ByteSpan left, ByteSpan right) {
    return left.size() == right.size() &&
           sodium_memcmp(left.data(), right.data(), left.size()) == 0;
}

}  // namespace walvault::storage
