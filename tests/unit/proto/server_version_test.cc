#include "proto/server_version.h"

#include <doctest/doctest.h>

using namespace walvault;

TEST_CASE("a server's number is of its major") {
    CHECK(server_major_of(140'023) == 14);
    CHECK(server_major_of(150'020) == 15);
    CHECK(server_major_of(90'624) == 9);
    CHECK(server_major_of(0) == 0);
}

TEST_CASE("the known majors are found, each with facts of its own") {
    CHECK(known_majors_text() == "14, 15, 16, 17 and 18");
    for (unsigned major = 14; major <= 18; ++major) {
        auto version = find_server_version(major, "the server");
        REQUIRE(version);
        CHECK((*version)->major == major);
        for (const ServerVersion& other : known_server_versions())
            CHECK((other.major == major) == (other.wal_page_magic == (*version)->wal_page_magic));
    }
}

TEST_CASE("an unknown major is refused with what it is, what is known, and what to do") {
    struct Refusal {
        unsigned major;
        const char* hint;
    };
    for (const Refusal& refusal : {Refusal{13, "upgrade the server"},
                                   {9, "upgrade the server"},
                                   {0, "upgrade the server"},
                                   {19, "use a walvault that knows"}}) {
        auto version = find_server_version(refusal.major, "the server");
        REQUIRE_FALSE(version);
        const Error& error = version.error();
        CHECK(error.code == Errc::unsupported);
        CHECK(error.message.find("the server is PostgreSQL " + std::to_string(refusal.major)) == 0);
        CHECK(error.message.find("14, 15, 16, 17 and 18") != std::string::npos);
        CHECK(error.hint.find(refusal.hint) == 0);
    }
}
