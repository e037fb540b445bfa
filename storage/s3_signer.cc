#include "storage/s3_signer.h"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/invariant.h"
#include "storage/s3_digest.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::size_t kDigestBytes = crypto_auth_hmacsha256_BYTES;

const unsigned char* raw(ByteSpan bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}

void hmac(const SecretBytes& key, std::string_view text, std::span<unsigned char> digest) {
    WV_ASSERT(digest.size() == kDigestBytes);
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, raw(key.view()), key.view().size());
    crypto_auth_hmacsha256_update(&state, raw(as_bytes(text)), text.size());
    crypto_auth_hmacsha256_final(&state, digest.data());
    sodium_memzero(&state, sizeof state);
}

// "20130524T000000Z".
std::string amazon_time(WallTime now) {
    std::string text = to_utc_text(now);
    text.resize(text.find('.'));
    std::erase_if(text, [](char c) { return c == '-' || c == ':'; });
    return text + "Z";
}

// Without blanks at its ends, and with one where there are several.
std::string canonical_value(std::string_view value) {
    std::string text;
    for (char c : value) {
        bool blank = c == ' ' || c == '\t';
        if (!blank)
            text += c;
        else if (!text.empty() && text.back() != ' ')
            text += ' ';
    }
    if (text.ends_with(' ')) text.pop_back();
    return text;
}

}  // namespace

SecretBytes s3_signing_key(const SecretBytes& secret, std::string_view day,
                           std::string_view region) {
    constexpr std::string_view kStart = "AWS4";
    SecretBytes key(kStart.size() + secret.view().size());
    std::ranges::copy(as_bytes(kStart), key.mutable_view().begin());
    std::ranges::copy(secret.view(), key.mutable_view().begin() + kStart.size());
    for (std::string_view part :
         {day, region, std::string_view("s3"), std::string_view("aws4_request")}) {
        SecretBytes next(kDigestBytes);
        hmac(key, part,
             {reinterpret_cast<unsigned char*>(next.mutable_view().data()), kDigestBytes});
        key = std::move(next);
    }
    return key;
}

std::string s3_day(WallTime now) { return amazon_time(now).substr(0, 8); }

std::string s3_encoded(std::string_view text, bool keep_slashes) {
    constexpr std::string_view kPlain =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    std::string encoded;
    encoded.reserve(text.size());
    for (char c : text) {
        auto byte = static_cast<unsigned char>(c);
        if (kPlain.find(c) != std::string_view::npos || (c == '/' && keep_slashes))
            encoded += c;
        else
            encoded.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
    }
    return encoded;
}

std::string s3_query(const S3Pairs& query) {
    S3Pairs encoded;
    for (const auto& [name, value] : query)
        encoded.emplace_back(s3_encoded(name, false), s3_encoded(value, false));
    std::ranges::sort(encoded);
    std::string text;
    for (const auto& [name, value] : encoded)
        text += (text.empty() ? "" : "&") + name + "=" + value;
    return text;
}

S3Pairs s3_signature(const S3ToSign& request, const S3Credentials& credentials,
                     const SecretBytes& key, const std::string& region, WallTime now) {
    std::string time = amazon_time(now);
    std::string day = time.substr(0, 8);
    S3Pairs added = {{"x-amz-content-sha256", request.payload_sha256}, {"x-amz-date", time}};
    if (!credentials.session_token.empty())
        added.emplace_back("x-amz-security-token", as_text(credentials.session_token.view()));

    S3Pairs signed_headers = request.headers;
    signed_headers.emplace_back("host", request.host);
    signed_headers.insert(signed_headers.end(), added.begin(), added.end());
    // By name alone: as whole lines, a name that goes on with '-' would come before its beginning.
    std::ranges::sort(signed_headers, {}, &S3Pairs::value_type::first);
    std::string lines;
    std::string names;
    for (const auto& [name, value] : signed_headers) {
        lines += name + ":" + canonical_value(value) + "\n";
        names += (names.empty() ? "" : ";") + name;
    }
    std::string canonical = request.method + "\n" + s3_encoded(request.path, true) + "\n" +
                            s3_query(request.query) + "\n" + lines + "\n" + names + "\n" +
                            request.payload_sha256;
    std::string scope = day + "/" + region + "/s3/aws4_request";
    std::string to_sign = std::string(kAlgorithm) + "\n" + time + "\n" + scope + "\n" +
                          sha256_hex(as_bytes(canonical));
    std::array<unsigned char, kDigestBytes> signature;
    hmac(key, to_sign, signature);
    added.emplace_back("authorization",
                       std::string(kAlgorithm) + " Credential=" + credentials.access_key + "/" +
                           scope + ",SignedHeaders=" + names +
                           ",Signature=" + to_hex(std::as_bytes(std::span(signature))));
    return added;
}

}  // namespace walvault::storage
