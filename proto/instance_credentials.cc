#include "proto/instance_credentials.h"

#include <nlohmann/json.hpp>

namespace walvault {
namespace {

using nlohmann::json;

const std::string* text_of(const json& body, const char* key) {
    const auto found = body.find(key);
    return found == body.end() ? nullptr : found->get_ptr<const std::string*>();
}

void wipe_texts(json& body) {
    for (auto& value : body)
        if (auto* text = value.get_ptr<std::string*>())
            wipe({reinterpret_cast<std::byte*>(text->data()), text->size()});
}

}  // namespace

Result<InstanceCredentials> parse_instance_credentials(ByteSpan body) {
    const std::string_view text = as_text(body);
    json parsed = json::parse(text.begin(), text.end(), nullptr, false);
    if (!parsed.is_object())
        return fail(Errc::corrupt, "the metadata service answered something else than keys");
    const std::string* access_key = text_of(parsed, "AccessKeyId");
    const std::string* secret_key = text_of(parsed, "SecretAccessKey");
    const std::string* token = text_of(parsed, "Token");
    const std::string* code = text_of(parsed, "Code");
    InstanceCredentials credentials;
    const bool good = access_key != nullptr && secret_key != nullptr && token != nullptr &&
                      (code == nullptr || *code == "Success");
    if (good)
        credentials = {*access_key, SecretBytes::copy_of(as_bytes(*secret_key)),
                       SecretBytes::copy_of(as_bytes(*token))};
    wipe_texts(parsed);
    if (good) return credentials;
    return fail(Errc::corrupt, "the metadata service has no keys for the role of this machine");
}

}  // namespace walvault
