#include "storage/tier_store.h"

#include <doctest/doctest.h>

#include "base/file_system.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/stored_history.h"

namespace walvault::storage {
namespace {

struct Tier {
    ScratchDirectory scratch;
    std::unique_ptr<ObjectStore> objects =
        make_directory_store(posix_file_system(), scratch.path());
    std::unique_ptr<ObjectStore> store =
        make_tier_store(make_directory_store(posix_file_system(), scratch.path()));

    void put(const std::string& tail, std::uint64_t offset, std::string_view bytes) {
        must(objects->put(tail_piece_name(tail, offset), as_bytes(bytes)));
    }
};

}  // namespace

TEST_CASE("a tier does what every object store must do") {
    Tier tier;
    object_store_suite(*tier.store);
}

TEST_CASE("a name of a piece is told from any other") {
    CHECK(tail_piece_name("main/wal/a.tail", 0x12ab) == "main/wal/a.tail/00000000000012ab");
    auto piece = parse_tail_piece_name("main/wal/a.tail/00000000000012ab");
    REQUIRE(piece);
    CHECK(piece->tail_path == "main/wal/a.tail");
    CHECK(piece->offset == 0x12ab);
    for (const char* other :
         {"main/wal/a.tail", "main/wal/a.tail/12ab", "main/wal/a.pack/00000000000012ab",
          "main/wal/a.tail/00000000000012AB", "main/wal/a.tail/-000000000001234",
          "main/wal/a.tail/b/00000000000012ab", ".tail/0000000000000000"})
        CHECK_MESSAGE(!parse_tail_piece_name(other), other);
}

TEST_CASE("the pieces of a tail are one object, up to the first hole") {
    Tier tier;
    tier.put("w/a.tail", 0, "0123");
    tier.put("w/a.tail", 4, "45");
    tier.put("w/a.tail", 6, "6789");
    tier.put("w/a.tail", 11, "beyond a hole");
    tier.put("w/b.tail", 4, "without a beginning");
    must(tier.objects->put("w/a.tail-x", as_bytes("x")));
    must(tier.objects->put("w/c.pack", as_bytes("pack")));
    using Names = std::vector<std::string>;
    CHECK(names_of(*tier.store, "") == Names{"w/a.tail", "w/a.tail-x", "w/c.pack"});
    CHECK(names_of(*tier.store, "w/a.t") == Names{"w/a.tail", "w/a.tail-x"});
    CHECK(names_of(*tier.store, "w/a.tail/").empty());
    CHECK(must(tier.store->info("w/a.tail")).size_bytes == 10);
    CHECK(as_text(must(tier.store->get("w/a.tail", 0, 100))) == "0123456789");
    for (std::uint64_t from = 0; from <= 10; ++from)
        for (std::uint64_t length = 0; from + length <= 11; ++length)
            CHECK(as_text(must(tier.store->get("w/a.tail", from, length))) ==
                  std::string("0123456789").substr(from, length));
    CHECK(must(tier.store->get("w/a.tail", ~0ull, ~0ull)).empty());
    CHECK(tier.store->info("w/b.tail").error().code == Errc::not_found);
    CHECK(tier.store->get("w/b.tail", 0, 1).error().code == Errc::not_found);
    CHECK(tier.store->get("w/a.tail/0000000000000000", 0, 1).error().code ==
          Errc::invalid_argument);
    CHECK(tier.store->put("w/a.tail", as_bytes("again")).error().code == Errc::refused);
    CHECK(tier.store->put("w/a.tail/000000000000000a", as_bytes("x")).error().code ==
          Errc::invalid_argument);
}

TEST_CASE(
    "a tail that grows is read as far as it goes, and one that is removed meanwhile is not there") {
    Tier tier;
    tier.put("w/a.tail", 0, "0123");
    CHECK(as_text(must(tier.store->get("w/a.tail", 0, 100))) == "0123");
    tier.put("w/a.tail", 4, "45");
    CHECK(as_text(must(tier.store->get("w/a.tail", 2, 100))) == "2345");
    must(tier.objects->remove("w/a.tail/0000000000000000"));
    CHECK(tier.store->get("w/a.tail", 0, 2).error().code == Errc::not_found);
    CHECK(tier.store->get("w/a.tail", 0, 2).error().code == Errc::not_found);
    CHECK(tier.store->info("w/a.tail").error().code == Errc::not_found);
}

TEST_CASE("a tail is put as one piece, removed with all of them, and read where it is whole") {
    Tier tier;
    must(tier.store->put("w/a.tail", as_bytes("0123")));
    CHECK(names_of(*tier.objects, "") == std::vector<std::string>{"w/a.tail/0000000000000000"});
    tier.put("w/a.tail", 4, "45");
    must(tier.store->remove("w/a.tail"));
    CHECK(names_of(*tier.objects, "").empty());
    CHECK_FALSE(std::filesystem::exists(tier.scratch / "w"));
    CHECK(tier.store->remove("w/a.tail").error().code == Errc::not_found);
    must(tier.objects->put("w/b.tail", as_bytes("as in a repository")));
    CHECK(must(tier.store->info("w/b.tail")).size_bytes == 18);
    CHECK(as_text(must(tier.store->get("w/b.tail", 3, 2))) == "in");
    CHECK(names_of(*tier.store, "") == std::vector<std::string>{"w/b.tail"});
}

TEST_CASE("a tier is named by a directory's absolute path or by a bucket, and by nothing else") {
    CHECK(must(directory_of_url("file:///mnt/backup//")) == "/mnt/backup");
    CHECK(must(parse_tier_url("file:///mnt/backup//")).url == "file:///mnt/backup");
    CHECK_FALSE(must(parse_tier_url("file:///mnt/backup")).bucket);
    const TierPlace place = must(parse_tier_url("s3://bucket/prefix/?region=eu-west-1"));
    CHECK(place.url == "s3://bucket/prefix");
    CHECK(place.bucket->region == "eu-west-1");
    CHECK(must(open_tier_store(posix_file_system(), place))->url() == "s3://bucket/prefix");
    for (const char* url : {"", "/mnt/backup", "file://mnt/backup", "file:///", "file:///a/../b",
                            "file:///a?b", "S3://bucket/prefix", "file:///a%20b", "s3:/bucket",
                            "s3://k:SeCrEt@bucket/x", "https://bucket"}) {
        auto parsed = parse_tier_url(url);
        REQUIRE_MESSAGE(!parsed, url);
        CHECK(parsed.error().code == Errc::invalid_argument);
        CHECK((parsed.error().message + parsed.error().hint).find("SeCrEt") == std::string::npos);
        const bool of_bucket = std::string(url).starts_with("s3://");
        CHECK(parsed.error().hint.find(of_bucket ? "s3://" : "file:///") != std::string::npos);
    }
}

}  // namespace walvault::storage
