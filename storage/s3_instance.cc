#include "storage/s3_instance.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>

#include "proto/instance_credentials.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kLocal = "http://127.0.0.1:";
constexpr const char* kAmazons = "http://169.254.169.254";
constexpr std::size_t kInstanceAnswerBytesMax = 64_KiB;
constexpr std::size_t kRoleBytesMax = 256;
// It is a few hops away at most, and the first answer may be slow where a proxy of it starts up.
constexpr long kConnectMillis = 2000;
constexpr long kAnswerMillis = 5000;
constexpr int kAttempts = 3;

struct Answer {
    long status = 0;
    ByteBuffer body;
};

std::size_t take(char* bytes, std::size_t, std::size_t count, void* context) {
    auto& body = *static_cast<ByteBuffer*>(context);
    if (body.size() + count > kInstanceAnswerBytesMax) return CURL_WRITEFUNC_ERROR;
    append(body, as_bytes({bytes, count}));
    return count;
}

Result<Answer> ask_once(const std::string& method, const std::string& url,
                        const std::string& header) {
    std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), &curl_easy_cleanup);
    std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
        curl_slist_append(nullptr, header.c_str()), &curl_slist_free_all);
    WV_ASSERT(easy != nullptr && headers != nullptr);
    Answer answer;
    const auto set = [&easy](CURLoption option, auto value) {
        CURLcode done = curl_easy_setopt(easy.get(), option, value);
        WV_ASSERT(done == CURLE_OK);
    };
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_CUSTOMREQUEST, method.c_str());
    set(CURLOPT_HTTPHEADER, headers.get());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_PROTOCOLS_STR, "http");
    set(CURLOPT_NOPROXY, "*");
    set(CURLOPT_CONNECTTIMEOUT_MS, kConnectMillis);
    set(CURLOPT_TIMEOUT_MS, kAnswerMillis);
    set(CURLOPT_WRITEFUNCTION, &take);
    set(CURLOPT_WRITEDATA, static_cast<void*>(&answer.body));
    CURLcode code = curl_easy_perform(easy.get());
    if (code != CURLE_OK)
        return fail(
            Error{Errc::unavailable,
                  std::string("the metadata service of this machine does not answer: ") +
                      curl_easy_strerror(code),
                  "credentials = \"imds:\" is for machines at Amazon that have a role; in a "
                  "container the hop limit must be 2.",
                  Origin::server});
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &answer.status);
    return answer;
}

// A good answer's body. 404 is what a machine without a role says.
Result<ByteBuffer> ask(const std::string& method, const std::string& url,
                       const std::string& header) {
    for (int left = kAttempts;; --left) {
        auto answer = ask_once(method, url, header);
        const bool again = !answer || answer->status >= 500 || answer->status == 429;
        if (again && left > 1) continue;
        if (!answer) return fail(answer.error());
        if (answer->status == 200) return std::move(answer->body);
        if (answer->status == 404)
            return fail(Errc::wrong_key, "this machine has no role that could have S3 credentials",
                        "Give it an instance profile, or name other credentials.");
        return fail(
            Error{Errc::unavailable,
                  "the metadata service of this machine answered " + std::to_string(answer->status),
                  {},
                  Origin::server});
    }
}

bool is_header_text(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7F; });
}

}  // namespace

bool is_instance_service(std::string_view url) {
    if (url.empty()) return true;
    if (!url.starts_with(kLocal)) return false;
    const std::string_view port = url.substr(kLocal.size());
    return !port.empty() && port.size() <= 5 &&
           port.find_first_not_of("0123456789") == std::string_view::npos;
}

Result<S3Credentials> read_instance_credentials(const std::string& url) {
    WV_ASSERT(is_instance_service(url));
    const std::string service = url.empty() ? kAmazons : url;
    WV_TRY(ByteBuffer token,
           ask("PUT", service + "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60"));
    const std::string authority = "X-aws-ec2-metadata-token: " + std::string(as_text(token));
    if (!is_header_text(as_text(token)))
        return fail(Errc::unavailable, "the metadata service gave a token that is none");
    const std::string roles = service + "/latest/meta-data/iam/security-credentials/";
    WV_TRY(ByteBuffer listed, ask("GET", roles, authority));
    std::string role(as_text(listed));
    role.resize(std::min(role.find('\n'), role.size()));
    if (role.size() > kRoleBytesMax || !is_header_text(role))
        return fail(Errc::wrong_key, "this machine has no role that could have S3 credentials",
                    "Give it an instance profile, or name other credentials.");
    WV_TRY(ByteBuffer body, ask("GET", roles + s3_encoded(role, false), authority));
    auto parsed = parse_instance_credentials(body);
    wipe(body);
    if (!parsed) return fail(Errc::wrong_key, parsed.error().message);
    return S3Credentials{std::move(parsed->access_key), std::move(parsed->secret_key),
                         std::move(parsed->session_token)};
}

}  // namespace walvault::storage
