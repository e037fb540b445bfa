// What is Swift's own (tests/support/swift_s3api.sh): run by hand, WALVAULT_S3_SCRIPT.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "storage/archive_store.h"
#include "storage/s3_store.h"
#include "storage/s3_upload.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/rgw/ceph_gateway.h"

namespace walvault::storage {
namespace {

std::unique_ptr<S3Store> open_swift(const S3Options& options) {
    return make_s3_store(posix_file_system(), options).value();
}

}  // namespace

TEST_SUITE_BEGIN("swift_s3api");

TEST_CASE("the condition of a put is refused with it, and that of a completion is minded") {
    auto store = open_swift(gateway().new_bucket());
    CHECK_FALSE(store->honours_create_only(1).value());
    CHECK(store->honours_create_only(65_MiB).value());
    CHECK(names_of(*store, "").empty());
    REQUIRE(store->put("a", as_bytes("first")).has_value());
    CHECK(store->put("a", as_bytes("second")).error().code == Errc::refused);
    CHECK(as_text(store->get("a", 0, 9).value()) == "first");
}

// Small ones, so that the last steps come close together. The store looks and then writes: where
// two win, the name was written twice.
TEST_CASE("of eight writers that put a name at once in parts one wins, or more than one") {
    int rounds_of_more = 0;
    const S3Options options = gateway().new_bucket();
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    const ObjectSource source = [](std::uint64_t, MutableByteSpan into) { return into.size(); };
    for (int round = 0; round < 20; ++round) {
        const std::string key = "race/" + std::to_string(round);
        std::atomic<int> won{0};
        std::atomic<int> refused{0};
        {
            std::vector<std::jthread> threads;
            for (int number = 0; number < 8; ++number)
                threads.emplace_back([&] {
                    auto answer =
                        upload_in_parts(client, key, 1, source, {}, {{"if-none-match", "*"}})
                            .answer;
                    if (answer && answer->ok())
                        ++won;
                    else if (answer && s3_failure(*answer) == S3Failure::exists)
                        ++refused;
                });
        }
        CHECK(won >= 1);
        CHECK(won + refused == 8);
        if (won > 1) ++rounds_of_more;
    }
    MESSAGE("more than one won in " << rounds_of_more << " of 20 rounds");
}

TEST_CASE("what the store does not have is told, and nothing is put without it") {
    const S3Options plain = gateway().new_bucket();
    S3Options options = plain;
    options.tags = {{"team", "db"}};
    CHECK(open_swift(options)->put("main/wal/a.pack", as_bytes("x")).error().code ==
          Errc::unsupported);
    options = plain;
    options.sse = "AES256";
    CHECK(open_swift(options)->put("main/wal/a.pack", as_bytes("x")).error().code ==
          Errc::unsupported);
    options = plain;
    options.storage_class = "GLACIER";
    CHECK(open_swift(options)->put("main/wal/a.pack", as_bytes("x")).error().code ==
          Errc::invalid_argument);
    options = plain;
    options.object_lock = "COMPLIANCE";
    options.object_lock_for = std::chrono::hours(24);
    options.part_bytes = options.multipart_above_bytes = 5_MiB;
    for (std::uint64_t size : {std::uint64_t{10}, 6_MiB}) {
        Error error = open_swift(options)->put("main/wal/a.pack", ByteBuffer(size)).error();
        INFO(error.message);
        CHECK(error.code == Errc::unsupported);
        CHECK(error.message.find("does not lock objects") != std::string::npos);
    }
    CHECK(names_of(*open_swift(plain), "").empty());
}

TEST_CASE("there is nothing to thaw") {
    auto store = open_swift(gateway().new_bucket());
    REQUIRE(store->put("main/wal/a.pack", as_bytes("x")).has_value());
    CHECK(store->list("").value().front().storage_class == "STANDARD");
    CHECK(store->archive()->archive_state("main/wal/a.pack").value().kind ==
          ArchiveState::Kind::ready);
    CHECK(store->archive()->request_thaw("main/wal/a.pack", {1}).value() == ThawAnswer::ready);
}

TEST_CASE("a part has no number above a thousand, and all but the last have 5 MiB") {
    const S3Options options = gateway().new_bucket();
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    S3Answer begun =
        client.perform({.method = "POST", .key = "a", .query = {{"uploads", ""}}}).value();
    const std::string id = parse_s3_upload_id(begun.body).value();
    auto put = [&](const std::string& number) {
        return client
            .perform({.method = "PUT",
                      .key = "a",
                      .query = {{"partNumber", number}, {"uploadId", id}},
                      .body = as_bytes("x")})
            .value();
    };
    CHECK(parse_s3_code(put("1001")).code == "InvalidArgument");
    const std::string etag(put("1").header("etag"));
    REQUIRE(put("2").ok());
    const std::string text = s3_completion({etag, etag});
    S3Answer completed =
        client
            .perform(
                {.method = "POST", .key = "a", .query = {{"uploadId", id}}, .body = as_bytes(text)})
            .value();
    CHECK(completed.status == 400);
    CHECK(parse_s3_code(completed).code == "EntityTooSmall");
}

TEST_CASE("another region is told") {
    S3Options options = gateway().new_bucket();
    options.region = "eu-west-1";
    Error error = open_swift(options)->list("").error();
    INFO(error.message);
    CHECK(error.code == Errc::unavailable);
    CHECK(error.message.find("AuthorizationHeaderMalformed") != std::string::npos);
    CHECK(error.hint == "region = \"us-east-1\"");
}

TEST_SUITE_END();

}  // namespace walvault::storage
