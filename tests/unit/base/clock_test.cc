#include "base/clock.h"

#include <doctest/doctest.h>

using namespace walvault;

TEST_CASE("times print with all six digits, before and after 1970") {
    CHECK(to_utc_text(WallTime{}) == "1970-01-01T00:00:00.000000Z");
    CHECK(to_utc_text(WallTime(Micros(1'787'400'177'981'204))) == "2026-08-22T12:02:57.981204Z");
    CHECK(to_utc_text(WallTime(Micros(-1))) == "1969-12-31T23:59:59.999999Z");
}

TEST_CASE("PostgreSQL's epoch is 2000-01-01") {
    CHECK(to_utc_text(from_postgres_micros(0)) == "2000-01-01T00:00:00.000000Z");
    CHECK(to_postgres_micros(from_postgres_micros(-12'345)) == -12'345);
}

TEST_CASE("the machine's steady clock does not go back") {
    const auto first = system_clock().steady_now();
    CHECK(system_clock().steady_now() >= first);
    CHECK(system_clock().now() > WallTime(Micros(1'600'000'000'000'000)));
}
