#include "storage/s3_signer.h"

#include <doctest/doctest.h>

#include "storage/s3_digest.h"

namespace walvault::storage {
namespace {

// The examples of "Signature Calculations for the Authorization Header" in Amazon's S3
// documentation.
S3Credentials example_credentials() {
    return {"AKIAIOSFODNN7EXAMPLE",
            SecretBytes::copy_of(as_bytes("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
            {}};
}
WallTime example_time() { return WallTime(Micros(1'369'353'600'000'000)); }  // 2013-05-24T00:00:00Z

S3ToSign example(const std::string& method, const std::string& path) {
    return {method, "examplebucket.s3.amazonaws.com", path, {}, {}, sha256_hex({})};
}

S3Pairs signed_by(const S3ToSign& request, const S3Credentials& credentials,
                  const std::string& region) {
    const SecretBytes key = s3_signing_key(credentials.secret_key, s3_day(example_time()), region);
    return s3_signature(request, credentials, key, region, example_time());
}
std::string authorization(const S3ToSign& request) {
    for (const auto& [name, value] : signed_by(request, example_credentials(), "us-east-1"))
        if (name == "authorization") return value;
    return {};
}
std::string expected(const std::string& signed_headers, const std::string& signature) {
    return "AWS4-HMAC-SHA256 "
           "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=" +
           signed_headers + ",Signature=" + signature;
}

}  // namespace

TEST_CASE("Amazon's examples are signed as Amazon signs them") {
    S3ToSign get = example("GET", "/test.txt");
    get.headers = {{"range", "bytes=0-9"}};
    CHECK(authorization(get) ==
          expected("host;range;x-amz-content-sha256;x-amz-date",
                   "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));

    S3ToSign put = example("PUT", "/test$file.text");
    put.headers = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                   {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    put.payload_sha256 = sha256_hex(as_bytes("Welcome to Amazon S3."));
    CHECK(authorization(put) ==
          expected("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                   "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));

    S3ToSign lifecycle = example("GET", "/");
    lifecycle.query = {{"lifecycle", ""}};
    CHECK(authorization(lifecycle) ==
          expected("host;x-amz-content-sha256;x-amz-date",
                   "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));

    S3ToSign list = example("GET", "/");
    list.query = {{"prefix", "J"}, {"max-keys", "2"}};
    CHECK(authorization(list) ==
          expected("host;x-amz-content-sha256;x-amz-date",
                   "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST_CASE("time, digest and session token become headers that are signed") {
    S3Credentials credentials = example_credentials();
    credentials.session_token = SecretBytes::copy_of(as_bytes("a-token"));
    S3Pairs added = signed_by(example("GET", "/x"), credentials, "eu-west-1");
    REQUIRE(added.size() == 4);
    CHECK(added[0] == std::pair<std::string, std::string>("x-amz-content-sha256", sha256_hex({})));
    CHECK(added[1] == std::pair<std::string, std::string>("x-amz-date", "20130524T000000Z"));
    CHECK(added[2] == std::pair<std::string, std::string>("x-amz-security-token", "a-token"));
    CHECK(added[3].second.find("/eu-west-1/s3/aws4_request,") != std::string::npos);
    CHECK(added[3].second.find("x-amz-date;x-amz-security-token,") != std::string::npos);
    CHECK(added[3].second.find("a-token") == std::string::npos);
}

TEST_CASE("all but the unreserved marks is encoded, in upper case, once") {
    CHECK(s3_encoded("AZaz09-._~", false) == "AZaz09-._~");
    CHECK(s3_encoded("a b+c%20d", false) == "a%20b%2Bc%2520d");
    CHECK(s3_encoded("~t'()*!", false) == "~t%27%28%29%2A%21");
    CHECK(s3_encoded(";:@,$=&?#[]{}|^`\"<>\\", false) ==
          "%3B%3A%40%2C%24%3D%26%3F%23%5B%5D%7B%7D%7C%5E%60%22%3C%3E%5C");
    CHECK(s3_encoded("é/日", false) == "%C3%A9%2F%E6%97%A5");
    CHECK(s3_encoded("é/日", true) == "%C3%A9/%E6%97%A5");
    CHECK(s3_encoded("x/../y//z", true) == "x/../y//z");
}

TEST_CASE("a query is sorted by its encoded names, and a bare name has its equals sign") {
    CHECK(s3_query({}) == "");
    CHECK(s3_query({{"uploads", ""}}) == "uploads=");
    CHECK(s3_query({{"prefix", "a/b c"}, {"list-type", "2"}, {"encoding-type", "url"}}) ==
          "encoding-type=url&list-type=2&prefix=a%2Fb%20c");
    CHECK(s3_query({{"partNumber", "10"}, {"Zed", "1"}}) == "Zed=1&partNumber=10");
}

TEST_CASE(
    "headers are sorted by name, where one name goes on with a dash too, and blanks are folded") {
    S3ToSign one = example("PUT", "/x");
    one.headers = {{"x-amz-meta-a-b", "2"}, {"x-amz-meta-a", "  1   and  2 "}};
    S3ToSign other = example("PUT", "/x");
    other.headers = {{"x-amz-meta-a", "1 and 2"}, {"x-amz-meta-a-b", "2"}};
    CHECK(authorization(one) == authorization(other));
    CHECK(authorization(one).find("x-amz-meta-a;x-amz-meta-a-b,") != std::string::npos);
}

TEST_CASE("digests are what others compute") {
    CHECK(sha256_hex(as_bytes("abc")) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(md5_base64(as_bytes("abc")) == "kAFQmDzST7DWlj99KOF/cg==");
    CHECK(md5_base64({}) == "1B2M2Y8AsgTpgAmY7PhCfg==");
}

}  // namespace walvault::storage
