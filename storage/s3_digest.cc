#include "storage/s3_digest.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <optional>

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

std::string base64_of(const std::array<std::byte, 16>& digest) {
    constexpr std::size_t kTextBytes =
        sodium_base64_ENCODED_LEN(sizeof digest, sodium_base64_VARIANT_ORIGINAL);
    std::array<char, kTextBytes> text;
    sodium_bin2base64(text.data(), text.size(),
                      reinterpret_cast<const unsigned char*>(digest.data()), digest.size(),
                      sodium_base64_VARIANT_ORIGINAL);
    return text.data();
}

struct Running {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    explicit Running(const EVP_MD* kind) {
        WV_ASSERT(context != nullptr && EVP_DigestInit_ex(context, kind, nullptr) == 1);
    }
    ~Running() { EVP_MD_CTX_free(context); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

    void update(ByteSpan bytes) {
        const int done = EVP_DigestUpdate(context, bytes.data(), bytes.size());
        WV_ASSERT(done == 1);
    }
    template <std::size_t size>
    std::array<std::byte, size> finish() {
        std::array<std::byte, size> digest;
        const int done =
            EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(digest.data()), nullptr);
        WV_ASSERT(done == 1);
        return digest;
    }
};

}  // namespace

struct BodyDigest::State {
    Running sha256{EVP_sha256()};
    std::optional<Running> md5;
};

BodyDigest::BodyDigest(bool with_md5) : state_(new State) {
    if (with_md5) state_->md5.emplace(EVP_md5());
}
BodyDigest::~BodyDigest() = default;

void BodyDigest::update(ByteSpan bytes) {
    state_->sha256.update(bytes);
    if (state_->md5) state_->md5->update(bytes);
}
std::string BodyDigest::sha256_hex() { return to_hex(state_->sha256.finish<32>()); }
std::string BodyDigest::md5_base64() {
    return state_->md5 ? base64_of(state_->md5->finish<16>()) : "";
}

std::string sha256_hex(ByteSpan bytes) { return to_hex(digest_of<32>(EVP_sha256(), bytes)); }

std::string md5_base64(ByteSpan bytes) { return base64_of(digest_of<16>(EVP_md5(), bytes)); }

}  // namespace walvault::storage
