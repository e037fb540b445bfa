#include "storage/s3_options.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

struct Variable {
    Variable(const char* variable, const char* value) : name(variable) {
        if (value != nullptr)
            ::setenv(name, value, 1);
        else
            ::unsetenv(name);
    }
    ~Variable() { ::unsetenv(name); }
    const char* name;
};

std::string origin_of(const std::string& url) {
    return s3_endpoint(parse_s3_url(url).value()).value().origin;
}

void write_credentials(const std::string& path, const std::string& text, mode_t mode = 0600) {
    write_raw_file(path, as_bytes(text));
    REQUIRE(::chmod(path.c_str(), mode) == 0);
}

}  // namespace

TEST_CASE("an s3 URL names bucket, prefix and options") {
    S3Options options =
        parse_s3_url(
            "s3://my-bucket/a/b%20c/?region=eu-west-1&endpoint=https%3A%2F%2Fstore:9000"
            "&style=path&ca_file=/etc/ca.pem&storage_class=STANDARD_IA"
            "&credentials=file:/etc/s3.key")
            .value();
    CHECK(options.bucket == "my-bucket");
    CHECK(options.prefix == "a/b c");
    CHECK(options.region == "eu-west-1");
    CHECK(options.endpoint == "https://store:9000");
    CHECK(options.style == S3Options::Style::path);
    CHECK(options.ca_file == "/etc/ca.pem");
    CHECK(options.storage_class == "STANDARD_IA");
    CHECK(options.credentials == "file:/etc/s3.key");
    CHECK(parse_s3_url("s3://my-bucket").value().prefix.empty());
    CHECK(parse_s3_url("s3://my-bucket/").value().prefix.empty());
}

TEST_CASE("the place of a bucket follows from endpoint, region and style") {
    CHECK(origin_of("s3://bucket") == "https://bucket.s3.us-east-1.amazonaws.com");
    CHECK(origin_of("s3://bucket?region=cn-north-1") ==
          "https://bucket.s3.cn-north-1.amazonaws.com.cn");
    CHECK(origin_of("s3://bucket?style=path") == "https://s3.us-east-1.amazonaws.com");
    // A certificate for *.s3… does not cover two labels.
    CHECK(origin_of("s3://my.bucket") == "https://s3.us-east-1.amazonaws.com");
    CHECK(origin_of("s3://bucket?endpoint=http://127.0.0.1:9000") == "http://127.0.0.1:9000");
    CHECK(origin_of("s3://bucket?endpoint=http://store:9000&style=host") ==
          "http://bucket.store:9000");
    S3Options options = parse_s3_url("s3://bucket?endpoint=https://store:443").value();
    CHECK(s3_endpoint(options).value().host == "store");
    CHECK(s3_endpoint(options).value().path_root == "/bucket");
}

TEST_CASE("what belongs to a tier in a bucket can stand in its URL, too") {
    S3Options options =
        parse_s3_url(
            "s3://bucket?storage_class_wal=STANDARD_IA&storage_class_base=GLACIER&sse=AES256"
            "&tags=team=db,%20env=a%20b&object_lock=governance%2030d&concurrency=8"
            "&bandwidth=20MiB/s&credentials=imds:")
            .value();
    CHECK(options.storage_class_wal == "STANDARD_IA");
    CHECK(options.storage_class_base == "GLACIER");
    CHECK(options.sse == "AES256");
    CHECK(options.tags == S3Pairs{{"team", "db"}, {"env", "a b"}});
    CHECK(options.object_lock == "GOVERNANCE");
    CHECK(options.object_lock_for == std::chrono::hours(720));
    CHECK(options.concurrency == 8);
    CHECK(options.bandwidth == 20_MiB);
    CHECK(options.credentials == "imds:");
    REQUIRE(set_s3_option(options, "object_lock", "off").has_value());
    REQUIRE(set_s3_option(options, "bandwidth", "off").has_value());
    CHECK(options.object_lock.empty());
    CHECK(options.bandwidth == 0);
    REQUIRE(set_s3_option(options, "bandwidth", "100000").has_value());
    CHECK(options.bandwidth == 100'000);
}

TEST_CASE("an s3 URL that cannot be meant is refused, and not repeated") {
    for (const char* url : {"",
                            "s3:",
                            "s3://",
                            "s3:///x",
                            "http://bucket",
                            "s3://ab",
                            "s3://key:SeCrEt@bucket/x",
                            "s3://bucket/../x",
                            "s3://bucket//x",
                            "s3://bucket/.x",
                            "s3://bucket/%2",
                            "s3://bucket/%zz",
                            "s3://bucket?nothing=1",
                            "s3://bucket?secret_key=SeCrEt",
                            "s3://bucket?endpoint=ftp://x",
                            "s3://bucket?endpoint=https://u:SeCrEt@x",
                            "s3://bucket?endpoint=https://x/y",
                            "s3://bucket?style=other",
                            "s3://bucket?ca_file=x",
                            "s3://bucket?region=",
                            "s3://bucket?credentials=SeCrEt",
                            "s3://bucket?credentials=credential:../x",
                            "s3://bucket?credentials=imds:http://evil",
                            "s3://bucket?sse=SeCrEt",
                            "s3://bucket?tags=SeCrEt",
                            "s3://bucket?object_lock=compliance",
                            "s3://bucket?object_lock=compliance%200d",
                            "s3://bucket?concurrency=0",
                            "s3://bucket?concurrency=1000",
                            "s3://bucket?bandwidth=20MB/s",
                            "s3://bucket?bandwidth=99999999999999999999GiB/s",
                            "s3://my.bucket?style=host",
                            "s3://bucket/a\nb"}) {
        INFO("url " << url);
        auto parsed = parse_s3_url(url);
        REQUIRE_FALSE(parsed.has_value());
        CHECK(parsed.error().code == Errc::invalid_argument);
        CHECK((parsed.error().message + parsed.error().hint).find("SeCrEt") == std::string::npos);
    }
}

TEST_CASE("credentials are read from a file that only its owner can read") {
    ScratchDirectory scratch;
    std::string path = scratch / "s3.key";
    std::string source = "file:" + path;
    write_credentials(path,
                      "# of the test\naccess_key = AK\n\n secret_key=SK/+=\r\nsession_token = T\n");
    S3Credentials read = read_s3_credentials(posix_file_system(), source).value();
    CHECK(read.access_key == "AK");
    CHECK(as_text(read.secret_key.view()) == "SK/+=");
    CHECK(as_text(read.session_token.view()) == "T");

    write_credentials(path, "access_key = AK\nsecret_key = SK\n", 0644);
    CHECK(read_s3_credentials(posix_file_system(), source).error().code == Errc::wrong_key);
    for (const char* text :
         {"access_key = AK\n", "secret_key = SeCrEt\n", "access_key = AK\nsecret = SeCrEt\n",
          "access_key = AK\nSeCrEt\n", "access_key = A K\nsecret_key = SeCrEt\n"}) {
        write_credentials(path, text);
        auto failed = read_s3_credentials(posix_file_system(), source);
        REQUIRE_FALSE(failed.has_value());
        CHECK(failed.error().code == Errc::wrong_key);
        CHECK((failed.error().message + failed.error().hint).find("SeCrEt") == std::string::npos);
    }
    CHECK(read_s3_credentials(posix_file_system(), "file:" + (scratch / "absent")).error().code ==
          Errc::wrong_key);
    CHECK(read_s3_credentials(posix_file_system(), "elsewhere").error().code ==
          Errc::invalid_argument);
}

TEST_CASE("a systemd credential is such a file in its directory") {
    ScratchDirectory scratch;
    write_credentials(scratch / "s3", "access_key = AK\nsecret_key = SK\n", 0400);
    {
        Variable none("CREDENTIALS_DIRECTORY", nullptr);
        CHECK(read_s3_credentials(posix_file_system(), "credential:s3").error().code ==
              Errc::wrong_key);
    }
    Variable directory("CREDENTIALS_DIRECTORY", scratch.path().c_str());
    CHECK(read_s3_credentials(posix_file_system(), "credential:s3").value().access_key == "AK");
}

TEST_CASE("the environment's credentials are those of Amazon's tools") {
    Variable secret("AWS_SECRET_ACCESS_KEY", "SK");
    {
        Variable none("AWS_ACCESS_KEY_ID", nullptr);
        CHECK(read_s3_credentials(posix_file_system(), "environment").error().code ==
              Errc::wrong_key);
    }
    Variable key("AWS_ACCESS_KEY_ID", "AK");
    CHECK(read_s3_credentials(posix_file_system(), "environment").value().session_token.empty());
    Variable token("AWS_SESSION_TOKEN", "T");
    S3Credentials read = read_s3_credentials(posix_file_system(), "environment").value();
    CHECK(read.access_key == "AK");
    CHECK(as_text(read.secret_key.view()) == "SK");
    CHECK(as_text(read.session_token.view()) == "T");
}

}  // namespace walvault::storage
