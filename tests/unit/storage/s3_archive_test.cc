#include "storage/s3_archive.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "storage/s3_store.h"
#include "storage/tier_store.h"
#include "tests/support/s3_imposter.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

using Kind = ArchiveState::Kind;
using std::chrono::hours;
using std::chrono::seconds;

struct Bucket {
    ScratchDirectory scratch;
    S3Imposter imposter;
    S3Options options;
    std::unique_ptr<S3Store> store;

    Bucket() {
        write_raw_file(scratch / "key", as_bytes("access_key = AK\nsecret_key = SeCrEt\n"));
        REQUIRE(::chmod((scratch / "key").c_str(), 0600) == 0);
        options.bucket = "bucket";
        options.prefix = "main";
        options.endpoint = imposter.endpoint();
        options.credentials = "file:" + (scratch / "key");
        options.stall_timeout = seconds(60);
        options.retry_for = seconds(0);
        ::setenv("no_proxy", "127.0.0.1", 1);
        open();
    }
    void open() { store = make_s3_store(posix_file_system(), options).value(); }
    ArchiveStore& archive() { return *store->archive(); }
    Kind kind(const std::string& name) { return archive().archive_state(name).value().kind; }
};

TEST_CASE("an archived object is there, is not read, and is read for a while when it was thawed") {
    Bucket at;
    REQUIRE(at.store->put("a", as_bytes("0123456789")).has_value());
    CHECK(at.kind("a") == Kind::ready);
    CHECK(at.archive().archive_state("a")->storage_class == "STANDARD");
    int paid = 0;
    for (const char* storage_class : {"GLACIER", "DEEP_ARCHIVE"}) {
        at.imposter.move_to_class("main/", storage_class);
        auto state = at.archive().archive_state("a").value();
        CHECK(state.kind == Kind::archived);
        CHECK(state.storage_class == storage_class);
        CHECK(state.size_bytes == 10);
        CHECK(at.store->list("").value().front().storage_class == storage_class);
        auto refused = at.store->get("a", 2, 3);
        CHECK(refused.error().code == Errc::archived);
        CHECK(refused.error().hint.find("walvault restore") != std::string::npos);
        CHECK(at.archive().last_refused() == "a");
        CHECK(at.store->info("a").has_value());

        CHECK(at.archive().request_thaw("a", {2}).value() == ThawAnswer::asked);
        CHECK(at.kind("a") == Kind::thawing);
        CHECK(at.archive().request_thaw("a", {2}).value() == ThawAnswer::thawing);
        CHECK(at.store->get("a", 2, 3).error().code == Errc::archived);
        at.imposter.advance(hours(4));
        state = at.archive().archive_state("a").value();
        CHECK(state.kind == Kind::thawed);
        REQUIRE(state.until.has_value());
        CHECK(as_text(at.store->get("a", 2, 3).value()) == "234");

        // Extended, at no further retrieval.
        at.imposter.advance(hours(47));
        CHECK(at.archive().request_thaw("a", {3}).value() == ThawAnswer::extended);
        CHECK(*at.archive().archive_state("a")->until - *state.until == hours(71));
        at.imposter.advance(hours(72));
        CHECK(at.kind("a") == Kind::archived);
        CHECK(at.store->get("a", 0, 1).error().code == Errc::archived);
        CHECK(at.imposter.retrievals().at("main/a") == ++paid);
        at.imposter.move_to_class("main/", "STANDARD");
        REQUIRE(at.store->remove("a").has_value());
        REQUIRE(at.store->put("a", as_bytes("0123456789")).has_value());
        at.open();
    }
    at.imposter.move_to_class("main/", "GLACIER_IR");
    CHECK(at.kind("a") == Kind::ready);
    CHECK(at.archive().archive_state("a")->storage_class == "GLACIER_IR");
}

TEST_CASE("a request says how long and how fast, and nothing about an absent object") {
    Bucket at;
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    at.imposter.move_to_class("main/", "GLACIER");
    REQUIRE(at.archive().request_thaw("a", {7, ThawSpeed::bulk}).has_value());
    const ImposterRequest asked = at.imposter.requests().back();
    CHECK(asked.method == "POST");
    CHECK(asked.body ==
          "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>7</Days>"
          "<GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters></RestoreRequest>");
    CHECK(at.archive().request_thaw("b", {7}).error().code == Errc::not_found);
    CHECK(at.archive().archive_state("b").error().code == Errc::not_found);
    at.imposter.set_faults([](const ImposterRequest&) {
        return ImposterFault{ImposterFault::Kind::answer, 403, "AccessDenied"};
    });
    CHECK(at.archive().request_thaw("a", {7}).error().code == Errc::unavailable);
    CHECK(at.archive().archive_state("a").error().code == Errc::unavailable);
}

TEST_CASE("where there is no capacity for a fast thaw it is told at once, with another way") {
    Bucket at;
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    at.imposter.move_to_class("main/", "GLACIER");
    at.options.retry_for = seconds(60);
    at.open();
    at.imposter.set_faults([](const ImposterRequest& request) {
        return request.has("restore") ? ImposterFault{ImposterFault::Kind::answer, 503,
                                                      "GlacierExpeditedRetrievalNotAvailable"}
                                      : ImposterFault{};
    });
    auto refused = at.archive().request_thaw("a", {1, ThawSpeed::expedited});
    CHECK(refused.error().code == Errc::unavailable);
    CHECK(refused.error().message.find("GlacierExpedited") != std::string::npos);
    CHECK(refused.error().hint.find("--thaw-speed standard") != std::string::npos);
    CHECK(at.store->counts().retries == 0);
}

TEST_CASE("a store that archives by name only has nothing to thaw") {
    Bucket at;
    at.imposter.set_thaw_time(seconds(-1));
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    REQUIRE(at.store->put("b", as_bytes("x")).has_value());
    at.imposter.move_to_class("main/", "GLACIER");
    CHECK(at.archive().request_thaw("a", {1}).value() == ThawAnswer::ready);
    const std::size_t before = at.imposter.count("GET");
    CHECK(at.kind("a") == Kind::ready);
    CHECK(at.kind("b") == Kind::ready);
    CHECK(at.imposter.count("GET") == before + 1);  // tried once
}

TEST_CASE("a tier hands on what its objects can") {
    Bucket at;
    S3Store* bare = at.store.get();
    auto tier = make_tier_store(std::move(at.store));
    CHECK(tier->archive() == bare->archive());
    ScratchDirectory scratch;
    CHECK(make_directory_store(posix_file_system(), scratch.path())->archive() == nullptr);
}

TEST_CASE("what HEAD tells of a thawed copy is read exactly, or not at all") {
    auto ongoing = parse_s3_restore("ongoing-request=\"true\"").value();
    CHECK(ongoing.is_ongoing);
    CHECK_FALSE(ongoing.until.has_value());
    auto done =
        parse_s3_restore("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 10:11:12 GMT\"")
            .value();
    CHECK_FALSE(done.is_ongoing);
    CHECK(to_utc_text(*done.until) == "2012-12-21T10:11:12.000000Z");
    for (const char* text :
         {"", "true", "ongoing-request=true", "ongoing-request=\"maybe\"",
          "ongoing-request=\"false\", expiry-date=\"2012-12-21\"",
          "ongoing-request=\"false\", expiry-date=\"Fri, 21 Foo 2012 10:11:12 GMT\""})
        CHECK(parse_s3_restore(text).error().code == Errc::corrupt);
}

TEST_CASE("speeds are read as they are written") {
    for (ThawSpeed speed : {ThawSpeed::standard, ThawSpeed::bulk, ThawSpeed::expedited})
        CHECK(parse_thaw_speed(to_string(speed)).value() == speed);
    CHECK_FALSE(parse_thaw_speed("Standard").has_value());
}

}  // namespace
}  // namespace walvault::storage
