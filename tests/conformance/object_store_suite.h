// What every ObjectStore must do; called with an empty store by the tests of each implementation.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "storage/object_store.h"

namespace walvault::storage {

inline std::vector<std::string> names_of(ObjectStore& store, const std::string& prefix) {
    auto listed = store.list(prefix);
    REQUIRE(listed.has_value());
    std::vector<std::string> names;
    for (const ObjectInfo& object : *listed) names.push_back(object.name);
    return names;
}

inline void check_put_and_get(ObjectStore& store) {
    REQUIRE(store.put("one/two/three.pack", as_bytes("0123456789")).has_value());
    CHECK(as_text(store.get("one/two/three.pack", 0, 100).value()) == "0123456789");
    CHECK(as_text(store.get("one/two/three.pack", 3, 4).value()) == "3456");
    CHECK(as_text(store.get("one/two/three.pack", 8, 1'000'000'000'000).value()) == "89");
    CHECK(store.get("one/two/three.pack", 10, 5).value().empty());
    CHECK(store.get("one/two/three.pack", 0xFFFF'FFFF'FFFF'FFFF, 0xFFFF'FFFF'FFFF'FFFF).value().empty());
    CHECK(store.info("one/two/three.pack").value().size_bytes == 10);
    REQUIRE(store.put("empty", {}).has_value());
    CHECK(store.get("empty", 0, 1).value().empty());
    ByteBuffer large(3'000'001, std::byte{0x5A});
    REQUIRE(store.put("large", large).has_value());
    CHECK(store.get("large", 0, large.size()).value() == large);
}

inline void check_get_into(ObjectStore& store) {
    REQUIRE(store.put("into", as_bytes("0123456789")).has_value());
    ByteBuffer held(4, std::byte{'-'});
    CHECK(store.get_into("into", 3, held).value() == 4);
    CHECK(as_text(held) == "3456");
    CHECK(store.get_into("into", 8, held).value() == 2);
    CHECK(as_text(held) == "8956");
    CHECK(store.get_into("into", 10, held).value() == 0);
    CHECK(store.get_into("into", 0xFFFF'FFFF'FFFF'FFFF, held).value() == 0);
    CHECK(store.get_into("absent", 0, held).error().code == Errc::not_found);
    CHECK(store.get_into("../up", 0, held).error().code == Errc::invalid_argument);
    CHECK(as_text(held) == "8956");
}

inline void check_names_are_written_once(ObjectStore& store) {
    REQUIRE(store.put("once", as_bytes("first")).has_value());
    CHECK(store.put("once", as_bytes("second")).error().code == Errc::refused);
    CHECK(as_text(store.get("once", 0, 100).value()) == "first");
    CHECK(names_of(store, "once") == std::vector<std::string>{"once"});
    REQUIRE(store.remove("once").has_value());
}

inline void check_absence_is_proven(ObjectStore& store) {
    CHECK(store.get("absent", 0, 1).error().code == Errc::not_found);
    CHECK(store.info("absent/too").error().code == Errc::not_found);
    CHECK(store.remove("absent").error().code == Errc::not_found);
    CHECK(names_of(store, "absent/").empty());
}

inline void check_listing(ObjectStore& store) {
    for (const char* name : {"list/b/2", "list/a", "list/b/10", "list/b-1", "list/bc/1", "listing"})
        REQUIRE(store.put(name, as_bytes(name)).has_value());
    using Names = std::vector<std::string>;
    CHECK(names_of(store, "list/") == Names{"list/a", "list/b-1", "list/b/10", "list/b/2", "list/bc/1"});
    CHECK(names_of(store, "list/b") == Names{"list/b-1", "list/b/10", "list/b/2", "list/bc/1"});
    CHECK(names_of(store, "list/b/") == Names{"list/b/10", "list/b/2"});
    CHECK(names_of(store, "list/b/2") == Names{"list/b/2"});
    CHECK(names_of(store, "list").size() == 6);
    CHECK(store.list("list/b/1").value().at(0).size_bytes == 9);
    REQUIRE(store.remove("list/b/2").has_value());
    CHECK(names_of(store, "list/b/") == Names{"list/b/10"});
    CHECK(store.remove("list/b/2").error().code == Errc::not_found);
}

inline void check_hostile_names_are_refused(ObjectStore& store) {
    std::size_t before = names_of(store, "").size();
    std::vector<std::string> names = {
        "", "/absolute", "a//b", "a/", "..", "../up", "a/../b", "a/..", ".", "./a", ".hidden",
        "a/.put-0", std::string("a\0b", 3), "a\nb", std::string(300, 'x'), std::string(2'000, 'x')};
    for (const std::string& name : names) {
        INFO("name " << name);
        CHECK(store.put(name, as_bytes("x")).error().code == Errc::invalid_argument);
        CHECK(store.get(name, 0, 1).error().code == Errc::invalid_argument);
        CHECK(store.info(name).error().code == Errc::invalid_argument);
        CHECK(store.remove(name).error().code == Errc::invalid_argument);
    }
    CHECK(store.list("../").error().code == Errc::invalid_argument);
    CHECK(store.list("/etc/").error().code == Errc::invalid_argument);
    CHECK(names_of(store, "").size() == before);
}

inline void check_threads_may_share_it(ObjectStore& store) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&store, t] {
            for (int i = 0; i < 25; ++i) {
                std::string name = "shared/d" + std::to_string(i % 3) + "/" + std::to_string(t * 100 + i);
                if (store.put(name, as_bytes(name))) static_cast<void>(store.get(name, 0, 100));
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(names_of(store, "shared/").size() == 100);
    for (const std::string& name : names_of(store, "shared/"))
        CHECK(as_text(store.get(name, 0, 100).value()) == name);
}

inline void object_store_suite(ObjectStore& store) {
    REQUIRE(names_of(store, "").empty());
    SUBCASE("what is put can be got, whole and in pieces") { check_put_and_get(store); }
    SUBCASE("and into memory of the caller's") { check_get_into(store); }
    SUBCASE("a name is written once") { check_names_are_written_once(store); }
    SUBCASE("what is absent is not_found") { check_absence_is_proven(store); }
    SUBCASE("a list has what begins with the prefix, sorted") { check_listing(store); }
    SUBCASE("names that could leave the store are refused") { check_hostile_names_are_refused(store); }
    SUBCASE("threads may share it") { check_threads_may_share_it(store); }
}

}  // namespace walvault::storage
