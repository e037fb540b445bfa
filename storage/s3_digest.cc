#include "storage/s3_digest.h"

#include <openssl/evp.h>
#include <sodium.h>

namespace walvault::storage {
namespace {

template <std::size_t size>
std::array<std::byte, size> digest_of(const EVP_MD* kind, ByteSpan bytes) {
    std::array<std::byte, size> digest;
    WV_ASSERT(static_cast<std::size_t>(EVP_MD_get_size(kind)) == size);
    int done = EVP_Digest(bytes.data(), bytes.size(),
                          reinterpret_cast<unsigned char*>(digest.data()), nullptr, kind, nullptr);
    WV_ASSERT(done == 1);
    return digest;
}

}  // namespace

std::string sha256_hex(ByteSpan bytes) { return to_hex(digest_of<32>(EVP_sha256(), bytes)); }

std::string md5_base64(ByteSpan bytes) {
    auto digest = digest_of<16>(EVP_md5(), bytes);
    constexpr std::size_t kTextBytes =
        sodium_base64_ENCODED_LEN(sizeof digest, sodium_base64_VARIANT_ORIGINAL);
    std::array<char, kTextBytes> text;
    sodium_bin2base64(text.data(), text.size(),
                      reinterpret_cast<const unsigned char*>(digest.data()), digest.size(),
                      sodium_base64_VARIANT_ORIGINAL);
    return text.data();
}

}  // namespace walvault::storage
