#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "storage/s3_store.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/rgw/ceph_gateway.h"

namespace walvault::storage {
namespace {

using std::chrono::seconds;

std::unique_ptr<S3Store> open(const S3Options& options) {
    return make_s3_store(posix_file_system(), options).value();
}

std::string random_text(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text(size, '\0');
    for (char& c : text)
        c = static_cast<char>(random());
    return text;
}

template <class Work>
void on_threads(int count, Work work) {
    std::vector<std::thread> threads;
    for (int number = 0; number < count; ++number)
        threads.emplace_back([&work, number] { work(number); });
    for (std::thread& thread : threads)
        thread.join();
}

// Asks that versions of objects are kept.
void keep_versions(const S3Options& options) {
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    std::string body =
        "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    auto answer =
        client.perform({.method = "PUT", .query = {{"versioning", ""}}, .body = as_bytes(body)});
    REQUIRE(answer.has_value());
    REQUIRE(answer->ok());
}

}  // namespace

TEST_CASE("a bucket of a real gateway does what every object store must do") {
    auto store = open(gateway().new_bucket());
    object_store_suite(*store);
}

TEST_CASE(
    "and over TLS, with the bucket in the host's name, below a prefix, with objects in parts") {
    S3Options options = gateway().new_bucket();
    std::string url = gateway().at("TLS_URL");
    options.endpoint = "https://s3.localhost" + url.substr(url.rfind(':'));
    options.style = S3Options::Style::host;
    options.ca_file = gateway().at("CA");
    options.prefix = "deep/and deeper";
    options.multipart_above_bytes = 1'000'000;
    auto store = open(options);
    object_store_suite(*store);
}

TEST_CASE("a certificate that nobody vouches for is not accepted") {
    S3Options options = gateway().new_bucket();
    options.endpoint = gateway().at("TLS_URL");
    auto store = open(options);
    Error error = store->put("a", as_bytes("x")).error();
    CHECK(error.code == Errc::unavailable);
    CHECK(error.message.find("certificate") != std::string::npos);
    CHECK(error.hint.find("ca_file") != std::string::npos);
    CHECK(store->counts().requests == 1);
}

TEST_SUITE_BEGIN("ceph_rgw");

TEST_CASE(
    "names are written once where the gateway sees to it, and it is known where it does not") {
    S3Options options = gateway().new_bucket();
    auto store = open(options);
    CHECK(store->honours_create_only(1).value());
    // This gateway does not look at the condition of a completion.
    CHECK_FALSE(store->honours_create_only(options.multipart_above_bytes + 1).value());
    CHECK(names_of(*store, "").empty());
    S3Options versioned = gateway().new_bucket();
    keep_versions(versioned);
    auto other = open(versioned);
    CHECK_FALSE(other->honours_create_only(1).value());
    REQUIRE(other->put("a", as_bytes("first")).has_value());
    CHECK(other->put("a", as_bytes("second")).error().code == Errc::refused);
    CHECK(as_text(other->get("a", 0, 9).value()) == "first");
}

TEST_CASE("of eight writers that put a name at once one wins, and what it put is there") {
    S3Options options = gateway().new_bucket();
    for (int round = 0; round < 20; ++round) {
        std::string name = "race/" + std::to_string(round);
        std::vector<std::unique_ptr<S3Store>> stores;
        for (int number = 0; number < 8; ++number)
            stores.push_back(open(options));
        for (auto& store : stores)
            REQUIRE(store->honours_create_only(1).value());
        std::atomic<int> refused{0};
        std::atomic<int> winner{-1};
        on_threads(8, [&](int number) {
            auto put = stores[static_cast<std::size_t>(number)]->put(
                name, as_bytes("of " + std::to_string(number)));
            if (put)
                winner = number;
            else if (put.error().code == Errc::refused)
                ++refused;
        });
        CHECK(refused == 7);
        CHECK(as_text(stores[0]->get(name, 0, 99).value()) == "of " + std::to_string(winner));
    }
}

TEST_SUITE_END();

TEST_CASE("names with any character are put, found, listed and removed") {
    auto store = open(gateway().new_bucket());
    std::vector<std::string> names = {"a b",
                                      "a+b",
                                      "a%20b",
                                      "é/日本",
                                      "~t'()*!",
                                      "amp&eq=x",
                                      "q?x=1",
                                      "h#x",
                                      ";:@,$",
                                      "[]{}|^`",
                                      "\"<>\\",
                                      "a&amp;b",
                                      "%2F",
                                      "x /y ",
                                      "+",
                                      "=",
                                      "100%",
                                      "a=b&c=d?e#f",
                                      "<Key>",
                                      "ü+ü %",
                                      "dir.x/y..z/a",
                                      "emoji/\U0001F600"};
    for (const std::string& name : names) {
        INFO("name " << name);
        CHECK(store->put(name, as_bytes("of " + name)).has_value());
        CHECK(store->put(name, as_bytes("again")).error().code == Errc::refused);
        CHECK(as_text(store->get(name, 0, 99).value()) == "of " + name);
        CHECK(store->info(name).value().size_bytes == name.size() + 3);
        CHECK(names_of(*store, name) == std::vector<std::string>{name});
    }
    std::ranges::sort(names);
    CHECK(names_of(*store, "") == names);
    for (const std::string& name : names)
        CHECK(store->remove(name).has_value());
    CHECK(names_of(*store, "").empty());
}

TEST_CASE("objects in parts are whole, and ranges go across their parts and to their end") {
    S3Options options = gateway().new_bucket();
    options.part_bytes = 5_MiB;
    options.multipart_above_bytes = 5_MiB;
    auto store = open(options);
    std::string text = random_text(12_MiB + 345, 1);
    REQUIRE(store->put("large", as_bytes(text)).has_value());
    CHECK(store->info("large").value().size_bytes == text.size());
    CHECK(as_text(store->get("large", 0, text.size()).value()) == text);
    CHECK(as_text(store->get("large", 5_MiB - 7, 5_MiB + 14).value()) ==
          text.substr(5_MiB - 7, 5_MiB + 14));
    CHECK(as_text(store->get("large", text.size() - 1, 10).value()) ==
          text.substr(text.size() - 1));
    CHECK(store->get("large", text.size(), 10).value().empty());
    CHECK(store->get("large", text.size() + 1, 1).value().empty());
    CHECK(store->put("large", as_bytes(text)).error().code == Errc::refused);
    // Nothing that was begun is left: a list of uploads names none.
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    S3Answer uploads = client.perform({.method = "GET", .query = {{"uploads", ""}}}).value();
    CHECK(uploads.ok());
    CHECK(as_text(uploads.body).find("<Upload>") == std::string::npos);
}

TEST_CASE("a list of 5,000 objects is complete, and comes in as few pages as there are thousands") {
    auto store = open(gateway().new_bucket());
    REQUIRE(store->honours_create_only(1).has_value());
    std::vector<std::string> names;
    for (int number = 0; number < 5000; ++number) {
        std::string text = std::to_string(number);
        names.push_back("many/" + std::string(5 - text.size(), '0') + text);
    }
    std::atomic<std::size_t> next{0};
    std::atomic<int> failed{0};
    on_threads(8, [&](int) {
        for (std::size_t at; (at = next++) < names.size();)
            if (!store->put(names[at], as_bytes(names[at]))) ++failed;
    });
    REQUIRE(failed == 0);
    auto before = store->counts().requests;
    CHECK(names_of(*store, "many/") == names);
    CHECK(store->counts().requests - before == 5);
    CHECK(names_of(*store, "many/0012").size() == 10);
}

TEST_CASE("who may not, and what is not there, is told apart and is never absence") {
    S3Options options = gateway().new_bucket();
    auto store = open(options);
    REQUIRE(store->put("a", as_bytes("x")).has_value());
    auto expect = [](const S3Options& wrong, const std::string& in_message,
                     const std::string& in_hint) {
        auto refused = open(wrong);
        for (const Error& error : {refused->get("a", 0, 1).error(), refused->info("a").error(),
                                   refused->put("b", as_bytes("x")).error(),
                                   refused->list("").error(), refused->remove("a").error()}) {
            INFO(error.message << " / " << error.hint);
            CHECK(error.code == Errc::unavailable);
            CHECK(error.message.find(in_message) != std::string::npos);
            CHECK(error.hint.find(in_hint) != std::string::npos);
            CHECK((error.message + error.hint).find("NotTheSecret") == std::string::npos);
        }
        CHECK(refused->counts().retries == 0);
    };
    S3Options wrong = options;
    wrong.credentials = gateway().credentials(gateway().at("ACCESS_KEY"), "NotTheSecret");
    expect(wrong, "SignatureDoesNotMatch", "secret_key");
    wrong.credentials = gateway().credentials("NotTheKey", "NotTheSecret");
    // Swift says of a key that it does not know what it says of a wrong secret.
    const bool tells_apart = CephGateway::kind() == "ceph_rgw";
    expect(wrong, tells_apart ? "InvalidAccessKeyId" : "SignatureDoesNotMatch", "access_key");
    wrong = options;
    wrong.bucket = "no-such-bucket";
    expect(wrong, "NoSuchBucket", "bucket");
    CHECK(store->info("b").error().code == Errc::not_found);
}

TEST_SUITE_BEGIN("ceph_rgw");

TEST_CASE("what is locked is removed by nobody until then, and what is not locked at once") {
    S3Options options = gateway().new_bucket(true);
    options.object_lock = "COMPLIANCE";
    options.object_lock_for = std::chrono::hours(24);
    options.part_bytes = options.multipart_above_bytes = 5_MiB;
    auto store = open(options);
    REQUIRE(store->put("main/wal/a.pack", as_bytes("x")).has_value());
    REQUIRE(store->put("main/wal/b.pack", as_bytes(random_text(6_MiB, 3))).has_value());
    REQUIRE(store->put("main/wal/c.tail/0000000000000000", as_bytes("x")).has_value());
    for (const char* name : {"main/wal/a.pack", "main/wal/b.pack"}) {
        Error error = store->remove(name).error();
        INFO(error.message);
        CHECK(error.code == Errc::refused);
        CHECK(error.message.find("is locked in the store until 20") != std::string::npos);
        CHECK(error.message.find("COMPLIANCE") != std::string::npos);
    }
    CHECK(as_text(store->get("main/wal/a.pack", 0, 9).value()) == "x");
    // A piece of a tail goes for good: no version of it stays.
    REQUIRE(store->remove("main/wal/c.tail/0000000000000000").has_value());
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    S3Answer versions = client.perform({.method = "GET", .query = {{"versions", ""}}}).value();
    CHECK(as_text(versions.body).find("a.pack") != std::string::npos);
    CHECK(as_text(versions.body).find(".tail") == std::string::npos);
}

TEST_CASE("tags and encryption by the store are what the gateway has of an object") {
    S3Options options = gateway().new_bucket();
    options.tags = {{"team", "db"}, {"env", "a b"}};
    options.multipart_above_bytes = options.part_bytes = 5_MiB;
    auto store = open(options);
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    for (std::uint64_t size : {std::uint64_t{10}, 6_MiB}) {
        std::string name = "n" + std::to_string(size);
        REQUIRE(store->put(name, as_bytes(random_text(size, size))).has_value());
        S3Answer tags =
            client.perform({.method = "GET", .key = name, .query = {{"tagging", ""}}}).value();
        std::string_view text = as_text(tags.body);
        CHECK(text.find("<Key>team</Key><Value>db</Value>") != std::string::npos);
        CHECK(text.find("<Key>env</Key><Value>a b</Value>") != std::string::npos);
    }
}

TEST_SUITE_END();

TEST_CASE("uploads that a killed writer left are found and aborted, below the prefix alone") {
    S3Options options = gateway().new_bucket();
    S3Client client(posix_file_system(), options, s3_endpoint(options).value());
    options.prefix = "mine";
    for (const char* key : {"mine/a", "mine/deep/b c", "minelike/c"})
        REQUIRE(client.perform({.method = "POST", .key = key, .query = {{"uploads", ""}}})
                    .value()
                    .ok());
    auto open_uploads = [&] {
        S3Answer listed = client.perform({.method = "GET", .query = {{"uploads", ""}}}).value();
        return parse_s3_uploads(listed.body).value().entries.size();
    };
    CHECK(open_uploads() == 3);
    REQUIRE(open(options)->sweep().has_value());
    CHECK(open_uploads() == 1);
}

TEST_CASE("nothing is lost and nothing is half where the gateway is killed during puts") {
    S3Options options = gateway().new_bucket();
    options.part_bytes = options.multipart_above_bytes = 5_MiB;
    options.retry_for = seconds(60);
    auto store = open(options);
    REQUIRE(store->honours_create_only(1).has_value());
    REQUIRE(store->honours_create_only(6_MiB).has_value());
    std::mutex mutex;
    std::map<std::string, std::uint64_t> put_sizes;
    std::vector<std::string> errors;
    std::atomic<bool> done{false};
    std::thread writers([&] {
        on_threads(4, [&](int writer) {
            for (int number = 0; !done; ++number) {
                std::uint64_t seed = static_cast<std::uint64_t>(writer) * 1'000'000 +
                                     static_cast<std::uint64_t>(number);
                std::string text = random_text(
                    number % 8 == 7 ? 6_MiB + seed % 1000 : 1000 + seed % 200'000, seed);
                auto put = store->put("w/" + std::to_string(seed), as_bytes(text));
                std::lock_guard lock(mutex);
                if (put)
                    put_sizes["w/" + std::to_string(seed)] = text.size();
                else
                    errors.push_back(put.error().message);
            }
        });
    });
    auto put_count = [&] {
        std::lock_guard lock(mutex);
        return put_sizes.size();
    };
    for (int round = 0; round < 10; ++round) {
        std::size_t before = put_count();
        auto deadline = std::chrono::steady_clock::now() + seconds(60);
        while (put_count() < before + 15 && std::chrono::steady_clock::now() < deadline)
            std::this_thread::yield();
        CHECK(put_count() >= before + 15);
        gateway().kill();
        gateway().start();
    }
    done = true;
    writers.join();
    for (const std::string& error : errors)
        FAIL_CHECK(error);
    CHECK(store->counts().retries > 0);
    auto listed = store->list("").value();
    CHECK(listed.size() == put_sizes.size());
    for (const ObjectInfo& object : listed) {
        INFO("object " << object.name);
        CHECK(put_sizes[object.name] == object.size_bytes);
        std::string text = random_text(object.size_bytes, std::stoull(object.name.substr(2)));
        CHECK((as_text(store->get(object.name, 0, object.size_bytes + 1).value()) == text));
    }
    MESSAGE(listed.size() << " objects, " << store->counts().retries << " attempts more, 10 kills");
}

}  // namespace walvault::storage
