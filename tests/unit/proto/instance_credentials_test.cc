#include "proto/instance_credentials.h"

#include <doctest/doctest.h>

namespace walvault {

TEST_CASE("the keys of a role are read, and anything else is refused and not repeated") {
    auto keys = parse_instance_credentials(as_bytes(
        R"({"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"S/+=","Token":"T","More":[1]})"));
    REQUIRE(keys.has_value());
    CHECK(keys->access_key == "AK");
    CHECK(as_text(keys->secret_key.view()) == "S/+=");
    CHECK(as_text(keys->session_token.view()) == "T");
    for (const char* text :
         {"", "SeCrEt", "[]", "\"SeCrEt\"", "{}",
          R"({"AccessKeyId":"A","SecretAccessKey":"SeCrEt"})",
          R"({"AccessKeyId":1,"SecretAccessKey":"SeCrEt","Token":"T"})",
          R"({"Code":"Failed","AccessKeyId":"A","SecretAccessKey":"SeCrEt","Token":"T"})",
          R"({"AccessKeyId":"A","SecretAccessKey":"SeCrEt","Token":"T")"}) {
        auto refused = parse_instance_credentials(as_bytes(text));
        REQUIRE_FALSE_MESSAGE(refused.has_value(), text);
        CHECK(refused.error().code == Errc::corrupt);
        CHECK((refused.error().message + refused.error().hint).find("SeCrEt") == std::string::npos);
    }
}

}  // namespace walvault
