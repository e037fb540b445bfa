#include "storage/s3_store.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "tests/conformance/object_store_suite.h"
#include "tests/support/s3_imposter.h"
#include "tests/support/scratch_directory.h"

namespace walvault::storage {
namespace {

using Kind = ImposterFault::Kind;
using std::chrono::seconds;
using std::chrono::steady_clock;

// A store of the imposter's bucket, with short times.
struct Fixture {
    ScratchDirectory scratch;
    S3Imposter imposter;
    S3Options options;
    std::unique_ptr<S3Store> store;

    explicit Fixture(const std::string& prefix = "main") {
        write_key("AK");
        options.bucket = "bucket";
        options.prefix = prefix;
        options.endpoint = imposter.endpoint();
        options.credentials = "file:" + (scratch / "key");
        options.stall_timeout = seconds(60);  // a machine that stood still is no store that hangs
        options.retry_for = seconds(20);
        ::setenv("no_proxy", "127.0.0.1", 1);
        open();
    }
    void open() { store = make_s3_store(posix_file_system(), options).value(); }
    void write_key(const std::string& access_key) {
        write_raw_file(scratch / "key",
                       as_bytes("access_key = " + access_key + "\nsecret_key = SeCrEt\n"));
        REQUIRE(::chmod((scratch / "key").c_str(), 0600) == 0);
    }
    // The next `count` requests of this method for this object fail so.
    void fail_next(int count, const std::string& method, ImposterFault fault,
                   const std::string& key = "main/a") {
        auto left = std::make_shared<std::atomic<int>>(count);
        imposter.set_faults([=](const ImposterRequest& request) {
            bool meant = request.method == method && request.key == key;
            return meant && left->fetch_sub(1) > 0 ? fault : ImposterFault{};
        });
    }
    void fail_always(const std::string& method, ImposterFault fault) {
        fail_next(1'000'000, method, fault);
    }
    std::string object(const std::string& key) {
        auto all = imposter.objects();
        return all.contains(key) ? all.at(key) : "(none)";
    }
};

template <class Condition>
void wait_until(Condition condition) {
    auto deadline = steady_clock::now() + seconds(30);
    while (!condition()) {
        REQUIRE(steady_clock::now() < deadline);
        std::this_thread::yield();
    }
}

ByteBuffer pattern(std::size_t size) {
    ByteBuffer bytes(size);
    for (std::size_t at = 0; at < size; ++at)
        bytes[at] = static_cast<std::byte>((at * 2654435761U) >> 13);
    return bytes;
}

}  // namespace

TEST_CASE("a store in a bucket does what every object store must do") {
    Fixture at("deep/prefix");
    object_store_suite(*at.store);
}
TEST_CASE(
    "and so it does without a prefix, page by page, with objects in parts, and where names are not "
    "refused") {
    Fixture at("");
    at.imposter.set_page_keys(3);
    at.imposter.set_create_only(false, false);
    at.options.multipart_above_bytes = 1'000'000;
    at.open();
    object_store_suite(*at.store);
}

TEST_CASE("whether names are refused is proved once, and nothing of it stays") {
    Fixture at;
    CHECK(at.store->honours_create_only(1).value());
    CHECK(at.store->honours_create_only(1).value());
    CHECK(at.imposter.count("PUT") == 2);
    CHECK(at.store->honours_create_only(65_MiB).value());
    CHECK(at.imposter.objects().empty());
    CHECK(at.imposter.open_uploads() == 0);
    at.imposter.set_create_only(true, false);
    at.open();
    CHECK(at.store->honours_create_only(1).value());
    CHECK_FALSE(at.store->honours_create_only(65_MiB).value());
    at.imposter.set_create_only(false, false);
    at.open();
    CHECK_FALSE(at.store->honours_create_only(1).value());
    CHECK(at.imposter.objects().empty());
}

TEST_CASE("a store that does not know the condition is asked before each put") {
    Fixture at;
    at.imposter.set_faults([](const ImposterRequest& request) {
        bool asked = request.headers.contains("if-none-match");
        return asked ? ImposterFault{Kind::answer, 501, "NotImplemented"} : ImposterFault{};
    });
    CHECK_FALSE(at.store->honours_create_only(1).value());
    CHECK(at.store->put("a", as_bytes("first")).has_value());
    CHECK(at.store->put("a", as_bytes("second")).error().code == Errc::refused);
    CHECK(at.object("main/a") == "first");
}

TEST_CASE("what is worth another try gets one") {
    Fixture at;
    at.options.stall_timeout = seconds(1);
    at.open();
    REQUIRE(at.store->honours_create_only(1).has_value());
    REQUIRE(at.store->put("b", as_bytes("0123456789")).has_value());
    for (ImposterFault fault :
         {ImposterFault{Kind::answer, 500, "InternalError"},
          ImposterFault{Kind::answer, 503, "SlowDown"}, ImposterFault{Kind::answer, 429, ""},
          ImposterFault{Kind::answer, 400, "RequestTimeout"},
          ImposterFault{Kind::answer, 409, "ConditionalRequestConflict"},
          ImposterFault{Kind::close_before}, ImposterFault{Kind::carry_out_and_close},
          ImposterFault{Kind::hang}}) {
        INFO("fault " << static_cast<int>(fault.kind) << " " << fault.status << " " << fault.code);
        at.fail_next(2, "PUT", fault);
        CHECK(at.store->put("a", as_bytes("mine")).has_value());
        CHECK(at.object("main/a") == "mine");
        CHECK(at.store->remove("a").has_value());
        at.fail_next(2, "GET", fault, "main/b");
        CHECK(as_text(at.store->get("b", 2, 3).value()) == "234");
        at.fail_next(2, "GET", fault, "");
        CHECK(names_of(*at.store, "") == std::vector<std::string>{"b"});
    }
    CHECK(at.store->counts().retries >= 40);
    CHECK(at.store->counts().throttled == 12);
}

TEST_CASE("a body that ends early, is longer, or is of another place is never given out") {
    Fixture at;
    REQUIRE(at.store->put("a", as_bytes("0123456789")).has_value());
    for (Kind kind : {Kind::cut_body, Kind::wrong_range, Kind::too_long}) {
        INFO("fault " << static_cast<int>(kind));
        at.options.retry_for = seconds(60);
        at.open();
        at.fail_next(1, "GET", {kind});
        CHECK(as_text(at.store->get("a", 0, 4).value()) == "0123");
        at.options.retry_for = seconds(0);
        at.open();
        at.fail_always("GET", {kind});
        CHECK(at.store->get("a", 0, 4).error().code == Errc::unavailable);
        CHECK(at.store->reads().errors == 1);
    }
}

TEST_CASE("a list that is no list, or cut, is asked for again and never taken for an empty one") {
    Fixture at;
    at.imposter.place("main/a", "x");
    for (Kind kind : {Kind::no_xml, Kind::cut_body}) {
        at.options.retry_for = seconds(60);
        at.open();
        at.fail_next(1, "GET", {kind}, "");
        CHECK(names_of(*at.store, "") == std::vector<std::string>{"a"});
        at.options.retry_for = seconds(0);
        at.open();
        at.fail_next(1'000, "GET", {kind}, "");
        CHECK_FALSE(at.store->list("").has_value());
    }
}

TEST_CASE("final refusals are told at once, apart, and are never absence") {
    Fixture at;
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    struct Row {
        int status;
        const char* code;
        Errc expected;
        const char* hint;
    };
    for (const Row& row :
         {Row{403, "AccessDenied", Errc::unavailable, "s3:ListBucket"},
          Row{403, "SignatureDoesNotMatch", Errc::unavailable, "secret_key"},
          Row{400, "ExpiredToken", Errc::unavailable, "new credentials"},
          Row{403, "RequestTimeTooSkewed", Errc::unavailable, "clock"},
          Row{404, "NoSuchBucket", Errc::unavailable, "bucket"},
          Row{403, "QuotaExceeded", Errc::no_space, "quota"},
          Row{301, "PermanentRedirect", Errc::unavailable, "eu-west-1"},
          Row{307, "TemporaryRedirect", Errc::unavailable, "eu-west-1"},
          Row{400, "InvalidStorageClass", Errc::invalid_argument, ""},
          Row{403, "InvalidObjectState", Errc::archived, "archive"}, Row{404, "", Errc::io, ""}}) {
        INFO("answer " << row.status << " " << row.code);
        ImposterFault fault{Kind::answer, row.status, row.code,
                            "x-amz-bucket-region: eu-west-1\r\nLocation: http://127.0.0.1:1/\r\n"};
        at.imposter.set_faults([=](const ImposterRequest&) { return fault; });
        std::size_t before = at.imposter.requests().size();
        for (const Error& error : {at.store->get("a", 0, 1).error(), at.store->info("a").error(),
                                   at.store->put("b", as_bytes("x")).error(),
                                   at.store->list("").error(), at.store->remove("a").error()}) {
            CHECK(error.code == row.expected);
            CHECK(error.hint.find(row.hint) != std::string::npos);
            CHECK(error.message.find(std::to_string(row.status)) != std::string::npos);
            CHECK((error.message + error.hint).find("SeCrEt") == std::string::npos);
        }
        CHECK(at.imposter.requests().size() - before <= 9);
        CHECK(at.store->counts().retries == 0);
    }
    at.imposter.set_faults({});
    CHECK(at.store->info("a").has_value());
    CHECK(at.store->info("b").error().code == Errc::not_found);
}

TEST_CASE("a put whose answer was lost is known again, and another's object is not taken for it") {
    Fixture at;
    REQUIRE(at.store->honours_create_only(1).has_value());
    at.fail_next(1, "PUT", {Kind::carry_out_and_close});
    CHECK(at.store->put("a", as_bytes("mine")).has_value());
    // The same bytes, and yet another's.
    CHECK(at.store->put("a", as_bytes("mine")).error().code == Errc::refused);
    REQUIRE(at.store->remove("a").has_value());
    // No attempt of it had an answer.
    at.options.retry_for = seconds(1);
    at.open();
    REQUIRE(at.store->honours_create_only(1).has_value());
    at.fail_always("PUT", {Kind::carry_out_and_close});
    CHECK(at.store->put("a", as_bytes("mine")).has_value());
    REQUIRE(at.store->remove("a").has_value());
    at.fail_always("PUT", {Kind::close_before});
    CHECK(at.store->put("a", as_bytes("mine")).error().code == Errc::unavailable);
    CHECK(at.object("main/a") == "(none)");
}

TEST_CASE("large objects are put in parts with their digests, and seen when they are whole") {
    Fixture at;
    at.options.multipart_above_bytes = 5_MiB;
    at.options.part_bytes = 5_MiB;
    at.open();
    ByteBuffer bytes = pattern(12_MiB + 7);
    at.imposter.set_faults([](const ImposterRequest& request) {
        bool second = request.has("partNumber") && request.query.at("partNumber") == "2";
        static std::atomic<int> left{2};
        return second && left-- > 0 ? ImposterFault{Kind::carry_out_and_close} : ImposterFault{};
    });
    REQUIRE(at.store->put("a", bytes).has_value());
    CHECK(at.store->get("a", 0, bytes.size()).value() == bytes);
    CHECK(as_text(at.store->get("a", 5_MiB - 1, 3).value()) ==
          as_text(ByteSpan(bytes).subspan(5_MiB - 1, 3)));
    CHECK(at.store->put("a", bytes).error().code == Errc::refused);
    CHECK(at.imposter.open_uploads() == 0);
    std::set<std::string> parts;
    for (const ImposterRequest& request : at.imposter.requests())
        if (request.has("partNumber") && request.key == "main/a")
            parts.insert(request.query.at("partNumber"));
    CHECK(parts == std::set<std::string>{"1", "2", "3"});
}

TEST_CASE("an upload that fails is aborted, and one whose completion was lost is found") {
    Fixture at;
    at.options.multipart_above_bytes = at.options.part_bytes = 5_MiB;
    at.open();
    ByteBuffer bytes = pattern(6_MiB);
    REQUIRE(at.store->honours_create_only(bytes.size()).has_value());
    at.fail_always("PUT", {Kind::answer, 403, "AccessDenied"});
    CHECK(at.store->put("a", bytes).error().code == Errc::unavailable);
    CHECK(at.imposter.open_uploads() == 0);
    CHECK(at.object("main/a") == "(none)");
    at.imposter.set_faults([](const ImposterRequest& request) {
        bool complete = request.method == "POST" && request.has("uploadId");
        return complete ? ImposterFault{Kind::carry_out_and_close} : ImposterFault{};
    });
    CHECK(at.store->put("a", bytes).has_value());
    // A completion that answers 200 and fails in its body has not completed anything.
    at.options.retry_for = seconds(1);
    at.open();
    at.imposter.set_faults({});
    REQUIRE(at.store->honours_create_only(bytes.size()).has_value());
    at.imposter.set_faults([](const ImposterRequest& request) {
        bool complete = request.method == "POST" && request.has("uploadId");
        return complete ? ImposterFault{Kind::answer, 200, "InternalError"} : ImposterFault{};
    });
    CHECK(at.store->put("b", bytes).error().code == Errc::unavailable);
    CHECK(at.object("main/b") == "(none)");
    CHECK(at.imposter.open_uploads() == 0);
}

TEST_CASE("an upload whose completion stays locked is left, and the object sent again") {
    Fixture at;
    at.options.multipart_above_bytes = at.options.part_bytes = 5_MiB;
    at.options.retry_for = seconds(4);
    at.open();
    ByteBuffer bytes = pattern(6_MiB);
    REQUIRE(at.store->honours_create_only(bytes.size()).value());
    auto locked = std::make_shared<std::string>();
    at.imposter.set_faults([=](const ImposterRequest& request) {
        if (request.method != "POST" || !request.has("uploadId")) return ImposterFault{};
        const std::string& id = request.query.at("uploadId");
        if (locked->empty()) *locked = id;
        return id == *locked ? ImposterFault{Kind::answer, 500, "InternalError"} : ImposterFault{};
    });
    CHECK(at.store->put("a", bytes).has_value());
    CHECK(at.store->get("a", 0, bytes.size()).value() == bytes);
    CHECK(at.imposter.open_uploads() == 0);
}

TEST_CASE("a store that hangs is given up, and a waiting call ends when it is told to") {
    Fixture at;
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    at.options.stall_timeout = seconds(1);
    at.options.retry_for = seconds(0);
    at.open();
    at.fail_always("GET", {Kind::hang});
    auto began = steady_clock::now();
    CHECK(at.store->get("a", 0, 1).error().code == Errc::unavailable);
    CHECK(steady_clock::now() - began < seconds(50));

    at.options.stall_timeout = at.options.retry_for = seconds(600);
    at.open();
    std::size_t seen = at.imposter.requests().size();
    std::thread waiting([&] { CHECK(at.store->get("a", 0, 1).error().code == Errc::cancelled); });
    wait_until([&] { return at.imposter.requests().size() > seen; });
    at.store->cancel();
    waiting.join();
    CHECK(at.store->info("a").error().code == Errc::cancelled);
    CHECK(steady_clock::now() - began < seconds(60));
}

TEST_CASE("a call that waits for its next attempt ends when it is told to") {
    Fixture at;
    at.options.retry_for = seconds(600);
    at.open();
    at.imposter.set_faults([](const ImposterRequest&) {
        return ImposterFault{Kind::answer, 503, "SlowDown", "Retry-After: 30\r\n"};
    });
    std::thread waiting([&] { CHECK(at.store->get("a", 0, 1).error().code == Errc::cancelled); });
    wait_until([&] { return at.store->counts().throttled > 0; });
    at.store->cancel();
    waiting.join();
    CHECK(at.store->counts().requests == 1);
}

TEST_CASE("credentials that were replaced are read again, and the call goes on") {
    Fixture at;
    REQUIRE(at.store->put("a", as_bytes("x")).has_value());
    at.imposter.set_faults([](const ImposterRequest& request) {
        bool fresh =
            request.headers.at("authorization").find("Credential=NEW/") != std::string::npos;
        return fresh ? ImposterFault{} : ImposterFault{Kind::answer, 400, "ExpiredToken"};
    });
    CHECK(at.store->get("a", 0, 1).error().message.find("ExpiredToken") != std::string::npos);
    at.write_key("NEW");
    CHECK(as_text(at.store->get("a", 0, 1).value()) == "x");
    CHECK(at.store->info("a").has_value());
}

TEST_CASE(
    "keys of others in the bucket are not listed, and a list that leaves the prefix is refused") {
    Fixture at;
    for (const char* key :
         {"main/a", "main/.probe-1", "main/dir/", "main/x.tmp", "mainly", "other/a"})
        at.imposter.place(key, "x");
    CHECK(names_of(*at.store, "") == std::vector<std::string>{"a"});
    CHECK(names_of(*at.store, "a") == std::vector<std::string>{"a"});
}

TEST_CASE("a name that is too long with its prefix is refused here") {
    Fixture at("p" + std::string(150, 'q'));
    std::string name;
    for (int i = 0; i < 5; ++i)
        name += std::string(180, 'n') + "/";
    CHECK(at.store->put(name + "x", as_bytes("x")).error().code == Errc::invalid_argument);
    CHECK(at.imposter.requests().empty());
}

TEST_CASE("where nobody listens nothing is proven absent") {
    Fixture at;
    at.options.endpoint = "http://127.0.0.1:1";
    at.options.retry_for = seconds(0);
    at.open();
    CHECK(at.store->put("a", as_bytes("x")).error().code == Errc::unavailable);
    CHECK(at.store->get("a", 0, 1).error().code == Errc::unavailable);
    CHECK(at.store->info("a").error().code == Errc::unavailable);
    CHECK(at.store->remove("a").error().code == Errc::unavailable);
    CHECK(at.store->list("").error().code == Errc::unavailable);
}

TEST_CASE("a storage class goes with packs, by their kind, and with nothing else") {
    Fixture at;
    at.options.storage_class = "STANDARD_IA";
    at.options.storage_class_wal = "GLACIER";
    at.options.multipart_above_bytes = 100;
    at.open();
    const std::map<std::string, std::string> classes = {{"main/wal/1.pack", "GLACIER"},
                                                        {"main/base/1_00001.pack", "STANDARD_IA"},
                                                        {"main/base/1.manifest.pack", ""},
                                                        {"ledger/1.log", ""},
                                                        {"main/wal/1.tail/0000000000000000", ""}};
    for (const auto& [name, expected] : classes)
        REQUIRE(at.store->put(name, pattern(expected == "GLACIER" ? 101 : 1)).has_value());
    std::size_t seen = 0;
    for (const ImposterRequest& request : at.imposter.requests()) {
        bool makes = request.method == "PUT" ? !request.has("partNumber") : request.has("uploads");
        std::string name = request.key.substr(std::min<std::size_t>(5, request.key.size()));
        if (!makes || !classes.contains(name)) continue;
        ++seen;
        auto given = request.headers.find("x-amz-storage-class");
        CHECK((given == request.headers.end() ? "" : given->second) == classes.at(name));
    }
    CHECK(seen == classes.size());
}

TEST_CASE("encryption by the store, tags and a lock go with what is there to stay") {
    Fixture at;
    at.options.sse = "aws:kms:alias/mine";
    at.options.tags = {{"team", "db"}, {"env", "a b"}};
    at.options.object_lock = "COMPLIANCE";
    at.options.object_lock_for = std::chrono::hours(48);
    at.open();
    at.imposter.set_wants_md5(true);
    REQUIRE(at.store->put("main/wal/1.pack", pattern(2_MiB)).has_value());
    REQUIRE(at.store->put("main/wal/1.tail/0000000000000000", pattern(10)).has_value());
    bool saw_pack = false;
    for (const ImposterRequest& request : at.imposter.requests()) {
        if (request.method != "PUT") continue;
        CHECK(request.headers.at("x-amz-server-side-encryption") == "aws:kms");
        CHECK(request.headers.at("x-amz-server-side-encryption-aws-kms-key-id") == "alias/mine");
        CHECK(request.headers.at("x-amz-tagging") == "env=a%20b&team=db");
        bool locked = request.headers.contains("x-amz-object-lock-mode");
        CHECK(locked == (request.key == "main/main/wal/1.pack"));
        if (!locked) continue;
        saw_pack = true;
        CHECK(request.headers.at("x-amz-object-lock-mode") == "COMPLIANCE");
        std::string until = request.headers.at("x-amz-object-lock-retain-until-date");
        CHECK(until.size() == std::string("2026-01-01T00:00:00Z").size());
        CHECK(until > to_utc_text(system_clock().now() + std::chrono::hours(47)));
        CHECK(until < to_utc_text(system_clock().now() + std::chrono::hours(49)));
    }
    CHECK(saw_pack);
}

TEST_CASE("large bodies go without a second digest until the store asks for one") {
    Fixture at;
    REQUIRE(at.store->put("a", pattern(2_MiB)).has_value());
    auto has_md5 = [&] { return at.imposter.requests().back().headers.contains("content-md5"); };
    CHECK_FALSE(has_md5());
    at.imposter.set_wants_md5(true);
    REQUIRE(at.store->put("b", pattern(2_MiB)).has_value());
    CHECK(has_md5());
    std::size_t before = at.imposter.requests().size();
    REQUIRE(at.store->put("c", pattern(2_MiB)).has_value());
    CHECK(at.imposter.requests().size() == before + 1);
}

TEST_CASE("an object is read from its source in pieces; what is far is held and read once") {
    Fixture at;
    at.options.multipart_above_bytes = at.options.part_bytes = 5_MiB;
    at.options.concurrency = 2;
    at.open();
    const ByteBuffer bytes = pattern(22_MiB + 3);
    std::atomic<std::uint64_t> longest{0};
    std::atomic<std::uint64_t> asked{0};
    const auto read = [&](std::uint64_t offset, MutableByteSpan into) {
        longest = std::max(longest.load(), into.size());
        asked += into.size();
        return source_of(bytes)(offset, into);
    };
    const ObjectSource source = read;
    REQUIRE(at.store->put_from("a", bytes.size(), source).has_value());
    CHECK(longest <= 1_MiB);
    CHECK(asked == 2 * bytes.size());
    CHECK((at.store->get("a", 0, bytes.size()).value() == bytes));
    REQUIRE(at.store->put_from("whole", 5_MiB, source).has_value());
    CHECK(longest <= 1_MiB);
    CHECK((at.store->get("whole", 0, ~0ull).value().size() == 5_MiB));
    CHECK(at.store->put_from("a", bytes.size(), source).error().code == Errc::refused);
    asked = 0;
    const ObjectSource far(read, true);
    REQUIRE(at.store->put_from("from afar", bytes.size(), far).has_value());
    CHECK(longest == 5_MiB);
    CHECK(asked == bytes.size());
    CHECK((at.store->get("from afar", 0, bytes.size()).value() == bytes));

    const ObjectSource broken = [&](std::uint64_t offset,
                                    MutableByteSpan into) -> Result<std::size_t> {
        if (offset > 0) return fail(Errc::io, "a bad sector");
        return source(offset, into);
    };
    Error error = at.store->put_from("b", bytes.size(), broken).error();
    CHECK(error.code == Errc::io);
    CHECK(error.message.find("a bad sector") != std::string::npos);
    const ObjectSource shorter = [](std::uint64_t, MutableByteSpan) { return std::size_t{3}; };
    CHECK(at.store->put_from("b", bytes.size(), shorter).error().code == Errc::corrupt);
    CHECK(at.store->put_from("b", 1000, shorter).error().code == Errc::corrupt);
    // Digested, and then it cannot be read any more.
    std::atomic<int> reads{0};
    const ObjectSource breaking = [&](std::uint64_t offset,
                                      MutableByteSpan into) -> Result<std::size_t> {
        if (reads++ > 0) return fail(Errc::io, "a bad sector");
        return source(offset, into);
    };
    CHECK(at.store->put_from("b", 100'000, breaking).error().code == Errc::io);
    CHECK(reads == 2);
    CHECK(at.object("main/b") == "(none)");
    // What is small is read once, for all attempts.
    reads = 0;
    CHECK(at.store->put_from("c", 1000, breaking));
    CHECK(reads == 1);
    CHECK(at.imposter.open_uploads() == 0);
}

TEST_CASE(
    "no more packs than wanted are sent at once, and what is not one does not wait for them") {
    Fixture at;
    at.options.concurrency = 2;
    at.options.stall_timeout = seconds(60);
    at.open();
    REQUIRE(at.store->honours_create_only(1).value());
    std::mutex mutex;
    std::condition_variable more;
    int waiting = 0;
    at.imposter.set_faults([&](const ImposterRequest& request) {
        if (request.method != "PUT" || request.key == "main/tail") return ImposterFault{};
        std::lock_guard lock(mutex);
        ++waiting;
        more.notify_all();
        return ImposterFault{Kind::hang};
    });
    std::vector<std::thread> writers;
    const ObjectSource source = [](std::uint64_t, MutableByteSpan into) { return into.size(); };
    for (int number = 0; number < 5; ++number)
        writers.emplace_back([&, number] {
            CHECK(at.store->put_from("w" + std::to_string(number), 10, source).error().code ==
                  Errc::cancelled);
        });
    {
        std::unique_lock lock(mutex);
        REQUIRE(more.wait_for(lock, seconds(30), [&] { return waiting == 2; }));
        CHECK_FALSE(
            more.wait_for(lock, std::chrono::milliseconds(300), [&] { return waiting > 2; }));
    }
    CHECK(at.store->put("tail", as_bytes("x")).has_value());
    CHECK(at.store->info("tail").has_value());
    CHECK(at.store->list("").has_value());
    at.store->cancel();
    for (std::thread& writer : writers)
        writer.join();
}

TEST_CASE("no more bytes than wanted are sent a second") {
    Fixture slow;
    slow.options.bandwidth = 2_MiB;
    slow.open();
    auto began = steady_clock::now();
    REQUIRE(slow.store->put("a", pattern(1_MiB)).has_value());
    REQUIRE(slow.store->put("b", pattern(1_MiB)).has_value());
    auto took = steady_clock::now() - began;
    CHECK(took > std::chrono::milliseconds(850));
    CHECK(took < seconds(10));
}

TEST_CASE("uploads that nobody will finish are swept away once") {
    Fixture at;
    at.options.multipart_above_bytes = at.options.part_bytes = 5_MiB;
    at.options.retry_for = seconds(0);
    at.open();
    REQUIRE(at.store->honours_create_only(6_MiB).value());
    // As a killed writer leaves it: begun and never ended.
    at.imposter.set_faults([](const ImposterRequest& request) {
        return request.has("partNumber") || request.method == "DELETE"
                   ? ImposterFault{Kind::answer, 403, "AccessDenied"}
                   : ImposterFault{};
    });
    CHECK_FALSE(at.store->put("a", pattern(6_MiB)).has_value());
    CHECK(at.imposter.open_uploads() == 1);
    CHECK(at.store->sweep().error().code == Errc::unavailable);
    at.imposter.set_faults({});
    at.open();
    CHECK(at.store->sweep().has_value());
    CHECK(at.imposter.open_uploads() == 0);
    std::size_t before = at.imposter.requests().size();
    CHECK(at.store->sweep().has_value());
    CHECK(at.imposter.requests().size() == before);
}

}  // namespace walvault::storage
