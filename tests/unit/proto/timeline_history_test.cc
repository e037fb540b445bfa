#include "proto/timeline_history.h"

#include <doctest/doctest.h>

#include <string>

using namespace walvault;

TEST_CASE("a timeline history lists the ancestors, oldest first") {
    auto switches = parse_timeline_history(
        "1\t0/30000A0\tno recovery target specified\n\n# by hand\n3\t0/5000000\tat \"x\"", 4);
    REQUIRE(switches);
    REQUIRE(switches->size() == 2);
    CHECK((*switches)[0].timeline == 1);
    CHECK((*switches)[0].end_lsn == Lsn{0x30000A0});
    CHECK((*switches)[1].timeline == 3);
    CHECK(parse_timeline_history("", 1)->empty());
}

TEST_CASE("a timeline history that cannot be is refused") {
    for (const char* text :
         {"x\t0/1\t", "1", "1\t", "1\tzero\n", "2\t0/1\tx\n1\t0/2\tx", "1\t0/1\tx\n1\t0/2\tx",
          "1\t0/9\tx\n2\t0/8\tx", "9\t0/1\tx", "10\t0/1\tx", "99999999999\t0/1\tx", "0\t0/1\tx",
          "-1\t0/1\tx", "1x\t0/1\tx"}) {
        INFO(text);
        auto parsed = parse_timeline_history(text, 9);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == Errc::corrupt);
    }
    CHECK_FALSE(parse_timeline_history(std::string(65'537, '\n'), 2));
    CHECK(parse_timeline_history(std::string(65'536, '\n'), 2));
}
