#include "proto/lsn.h"

#include <doctest/doctest.h>

using namespace walvault;

TEST_CASE("an LSN is printed and parsed as PostgreSQL does") {
    CHECK(to_string(Lsn{0x16'B374'D848}) == "16/B374D848");
    CHECK(to_string(Lsn{}) == "0/0");
    CHECK(to_string(Lsn{~0ULL}) == "FFFFFFFF/FFFFFFFF");
    CHECK(to_string(Lsn{0x1'0000'000A}) == "1/A");
    for (std::uint64_t value : {0ULL, 1ULL, 0x3000028ULL, 0xFFFFFFFFULL, 0x100000000ULL, ~0ULL})
        CHECK(parse_lsn(to_string(Lsn{value})).value() == Lsn{value});
    CHECK(parse_lsn("0/3000a0").value() == Lsn{0x3000A0});
}

TEST_CASE("text that is not wholly an LSN is refused") {
    for (const char* text : {"", "/", "1", "1/", "/1", "1/2/3", "1/G", "0x1/2", "123456789/0",
                             "0/123456789", " 1/2", "1/2 ", "-1/2", "+1/2", "1/-2"}) {
        INFO(text);
        auto parsed = parse_lsn(text);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == Errc::invalid_argument);
    }
}

TEST_CASE("an LSN is rounded down to any unit") {
    CHECK(Lsn{8191}.round_down(8192) == Lsn{0});
    CHECK(Lsn{8192}.round_down(8192) == Lsn{8192});
    CHECK(Lsn{(5ULL << 32) + 17}.round_down(1 << 24) == Lsn{5ULL << 32});
    CHECK(Lsn{10} - Lsn{4} == 6);
}
