#include "storage/s3_lock.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>

#include "storage/s3_store.h"
#include "tests/support/s3_imposter.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

using ObjectLock = S3Imposter::ObjectLock;

struct Fixture {
    ScratchDirectory scratch;
    S3Imposter imposter;
    S3Options options;

    Fixture() {
        write_raw_file(scratch / "key", as_bytes("access_key = AK\nsecret_key = SeCrEt\n"));
        REQUIRE(::chmod((scratch / "key").c_str(), 0600) == 0);
        ::setenv("no_proxy", "127.0.0.1", 1);
        options.bucket = "bucket";
        options.endpoint = imposter.endpoint();
        options.credentials = "file:" + (scratch / "key");
        options.object_lock = "COMPLIANCE";
        options.object_lock_for = std::chrono::hours(48);
        options.part_bytes = options.multipart_above_bytes = 5_MiB;
    }
    std::unique_ptr<S3Store> open() { return make_s3_store(posix_file_system(), options).value(); }
    long asked() const {
        const auto all = imposter.requests();
        return std::ranges::count_if(
            all, [](const ImposterRequest& request) { return request.has("object-lock"); });
    }
};

// Large enough to be put in parts, or not.
ByteBuffer body(bool in_parts) { return ByteBuffer(in_parts ? 6_MiB : 10, std::byte{'x'}); }

}  // namespace

TEST_CASE("nothing is put that is to be locked where the bucket, or the store, locks nothing") {
    Fixture at;
    auto store = at.open();
    for (auto lock : {ObjectLock::unknown, ObjectLock::absent}) {
        at.imposter.set_object_lock(lock);
        for (bool in_parts : {false, true}) {
            auto put = store->put("main/wal/1.pack", body(in_parts));
            REQUIRE_FALSE(put.has_value());
            const Error& error = put.error();
            CHECK(error.code == Errc::unsupported);
            CHECK(error.message.find("does not lock objects") != std::string::npos);
            CHECK(error.hint.find("object_lock") != std::string::npos);
        }
        CHECK(at.imposter.objects().empty());
        // A piece of a tail is never locked.
        REQUIRE(store->put("main/wal/1.tail/0", body(false)).has_value());
        REQUIRE(store->remove("main/wal/1.tail/0").has_value());
    }
    // It is asked until the answer is yes.
    at.imposter.set_object_lock(ObjectLock::enabled);
    const long before = at.asked();
    for (const char* name : {"main/wal/1.pack", "main/wal/2.pack"}) {
        REQUIRE(store->put(name, body(true)).has_value());
        CHECK(at.imposter.objects().at(name) == as_text(body(true)));
    }
    CHECK(at.asked() == before + 1);
}

TEST_CASE("a key that may not ask whether the bucket locks is believed; what is unclear is not") {
    Fixture at;
    auto answer_with = [&at](int status, const std::string& code) {
        at.imposter.set_faults([=](const ImposterRequest& request) {
            return request.has("object-lock")
                       ? ImposterFault{ImposterFault::Kind::answer, status, code}
                       : ImposterFault{};
        });
    };
    answer_with(404, "NoSuchBucket");
    CHECK(at.open()->put("main/wal/1.pack", body(false)).error().code == Errc::unavailable);
    answer_with(501, "NotImplemented");
    CHECK(at.open()->put("main/wal/1.pack", body(false)).error().code == Errc::unsupported);
    CHECK(at.imposter.objects().empty());
    answer_with(403, "AccessDenied");
    CHECK(at.open()->put("main/wal/1.pack", body(false)).has_value());
}

TEST_CASE("a lock holds until its time, and a legal hold without one") {
    CHECK_FALSE(is_locked({}));
    CHECK(is_locked({.mode = "COMPLIANCE", .until = "2999-01-01T00:00:00Z"}));
    CHECK_FALSE(is_locked({.mode = "COMPLIANCE", .until = "2001-01-01T00:00:00.123456Z"}));
    CHECK(is_locked({.is_held = true}));
    S3Answer answer;
    answer.headers = {{"x-amz-object-lock-mode", "GOVERNANCE"},
                      {"x-amz-object-lock-retain-until-date", "2999-01-01T00:00:00Z"},
                      {"x-amz-object-lock-legal-hold", "OFF"}};
    const Error error = s3_locked_error(s3_lock_in(answer));
    CHECK(error.code == Errc::refused);
    CHECK(error.message == "it is locked in the store until 2999-01-01T00:00:00Z (GOVERNANCE)");
}

}  // namespace walvault::storage
