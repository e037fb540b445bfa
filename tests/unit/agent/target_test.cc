#include "agent/target.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

// 2026-08-22 12:30:00 UTC, 14:30 in Berlin.
const WallTime kNow{std::chrono::seconds(1787401800)};
const TimeContext kBerlin{kNow, "Europe/Berlin"};

std::string instant(const std::string& text) {
    auto at = parse_time(text, kBerlin);
    return at ? to_utc_text(*at) : "error: " + at.error().message;
}
Errc failure(const std::string& text) {
    auto target = parse_target(text, false, kBerlin);
    REQUIRE_MESSAGE(!target, text);
    return target.error().code;
}

TEST_CASE("a time with an offset means the same everywhere") {
    for (const char* text :
         {"2026-08-22T14:02:58.113+02:00", "2026-08-22 14:02:58.113+02", "2026-08-22 12:02:58.113Z",
          "2026-08-22T12:02:58.113Z", "2026-08-22 08:02:58.113-0400",
          "2026-08-22 14:02:58.113 CEST", "2026-08-22 14:02:58.113 Europe/Berlin",
          "2026-08-22 12:02:58.113 UTC", "2026-08-22 14:02:58.113", "14:02:58.113",
          "today 14:02:58.113", "@1787400178.113"})
        CHECK_MESSAGE(instant(text) == "2026-08-22T12:02:58.113000Z", text);
}

TEST_CASE("short and relative times count from now in the server's zone") {
    CHECK(to_utc_text(kNow) == "2026-08-22T12:30:00.000000Z");
    CHECK(instant("14:02") == "2026-08-22T12:02:00.000000Z");
    CHECK(instant("yesterday 14:02") == "2026-08-21T12:02:00.000000Z");
    CHECK(instant("5m") == "2026-08-22T12:25:00.000000Z");
    CHECK(instant("-5m") == "2026-08-22T12:25:00.000000Z");
    CHECK(instant("1h30m") == "2026-08-22T11:00:00.000000Z");
    CHECK(instant("5 minutes ago") == "2026-08-22T12:25:00.000000Z");
    CHECK(instant("2 d") == "2026-08-20T12:30:00.000000Z");
    CHECK(instant("2026-08-22") == "2026-08-21T22:00:00.000000Z");
}

TEST_CASE("all six digits of a second are kept") {
    CHECK(instant("2026-08-22 14:02:58.981204+02") == "2026-08-22T12:02:58.981204Z");
    CHECK(failure("2026-08-22 14:02:58.9812041+02") == Errc::invalid_argument);
}

TEST_CASE("a local time that happened twice names both instants") {
    auto twice = parse_target("2026-10-25 02:30", false, kBerlin);
    REQUIRE(!twice);
    CHECK(twice.error().code == Errc::ambiguous);
    CHECK(twice.error().hint.find("+02:00 (CEST, 2026-10-25T00:30:00.000000Z)") !=
          std::string::npos);
    CHECK(twice.error().hint.find("+01:00 (CET, 2026-10-25T01:30:00.000000Z)") !=
          std::string::npos);
    CHECK(instant("2026-10-25 02:30 CEST") == "2026-10-25T00:30:00.000000Z");
    CHECK(instant("2026-10-25 02:30 CET") == "2026-10-25T01:30:00.000000Z");
    CHECK(instant("2026-10-25 02:30+01") == "2026-10-25T01:30:00.000000Z");
}

TEST_CASE("a local time that never happened is refused with its edges") {
    auto never = parse_target("2026-03-29 02:30", false, kBerlin);
    REQUIRE(!never);
    CHECK(never.error().code == Errc::outside_window);
    CHECK(never.error().hint.find("2026-03-29T01:00:00.000000Z") != std::string::npos);
}

TEST_CASE("an abbreviation that was not in force is refused") {
    CHECK(failure("2026-01-22 14:02:58 CEST") == Errc::invalid_argument);
    CHECK(failure("2026-08-22 14:02:58 EST") == Errc::invalid_argument);
}

TEST_CASE("a bare integer is refused, and the hint says what to write") {
    auto bare = parse_target("739", false, kBerlin);
    REQUIRE(!bare);
    CHECK(bare.error().code == Errc::invalid_argument);
    CHECK(bare.error().hint == "say xid:739 or @739");
}

TEST_CASE("text that is no target is refused as a whole") {
    for (const char* text : {"",
                             "  ",
                             "now",
                             "tomorrow",
                             "2026-08-22T12:02:58Zjunk",
                             "14:03:61",
                             "25:00",
                             "14:2",
                             "2026-02-30",
                             "2026-08-22 14:02:58 Mars/Olympus",
                             "2026-8-2",
                             "5x",
                             "5 minutes later",
                             "lsn:1",
                             "lsn:123456789/0",
                             "xid:",
                             "xid:2",
                             "xid:99999999999",
                             "xid:-1",
                             "name:",
                             "backup:",
                             "@",
                             "@1.1234567",
                             "1/2/3",
                             "14:02+99",
                             "time:",
                             "Latest"})
        CHECK_MESSAGE(failure(text) == Errc::invalid_argument, text);
    CHECK(failure(std::string(5000, '9') + "m") == Errc::invalid_argument);
    CHECK(instant("14:03:61").find("seconds run to 59") != std::string::npos);
}

TEST_CASE("named forms say exactly what they mean") {
    auto lsn = parse_target("16/B374D848", true, kBerlin);
    REQUIRE(lsn);
    CHECK(lsn->kind == Target::Kind::lsn);
    CHECK(to_string(lsn->lsn) == "16/B374D848");
    CHECK(lsn->before);
    CHECK(parse_target("lsn:0/5A01CB8", false, kBerlin)->lsn.value == 0x5A01CB8);
    CHECK(parse_target("xid:88502", true, kBerlin)->xid == 88502);
    CHECK(parse_target("name:before release 42", false, kBerlin)->name == "before release 42");
    CHECK(parse_target("backup:20260822T003000Z", false, kBerlin)->name == "20260822T003000Z");
    CHECK(parse_target("latest", false, kBerlin)->kind == Target::Kind::latest);
    CHECK(parse_target(" immediate ", false, kBerlin)->kind == Target::Kind::immediate);
    CHECK(parse_target("time:14:02", false, kBerlin)->kind == Target::Kind::time);
}

TEST_CASE("there is no just-before for what is no point in WAL") {
    for (const char* text : {"latest", "earliest", "immediate", "backup:20260822T003000Z"}) {
        auto target = parse_target(text, true, kBerlin);
        REQUIRE(!target);
        CHECK(target.error().code == Errc::invalid_argument);
    }
}

}  // namespace
}  // namespace walvault::agent
