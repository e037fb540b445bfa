#include "agent/render.h"

#include <doctest/doctest.h>

#include <cstdlib>

namespace walvault::agent {
namespace {

WallTime at(std::int64_t micros) { return WallTime(Micros(micros)); }

TEST_CASE("Sizes have three digits at most and IEC units") {
    CHECK(format_size(0) == "0 B");
    CHECK(format_size(999) == "999 B");
    CHECK(format_size(1000) == "0.98 KiB");
    CHECK(format_size(1ull << 30) == "1 GiB");
    CHECK(format_size(69'900'000'000) == "65.1 GiB");
    CHECK(format_size(~0ull) == "16384 PiB");
    CHECK(format_rate(-1) == "0 B/s");
}

TEST_CASE("Durations show their two largest units") {
    using namespace std::chrono;
    CHECK(format_duration(microseconds(0)) == "0 s");
    CHECK(format_duration(microseconds(412)) == "0.4 ms");
    CHECK(format_duration(milliseconds(300)) == "0.3 s");
    CHECK(format_duration(seconds(100)) == "1 min 40 s");
    CHECK(format_duration(minutes(813)) == "13 h 33 min");
    CHECK(format_duration(hours(24 * 14)) == "14 d 0 h");
    CHECK(format_duration(-seconds(12)) == "-12 s");
    CHECK_NOTHROW(format_duration(microseconds::min()));
}

TEST_CASE("A hundred percent is shown only when all is done") {
    CHECK(format_percent(999'999, 1'000'000) == "99 %");
    CHECK(format_percent(5, 5) == "100 %");
    CHECK(format_percent(5, 0) == "0 %");
}

TEST_CASE("Local time carries the zone's letters on both sides of a clock change") {
    // 2026-10-25 00:30 and 01:30 UTC are both 02:30 in Berlin.
    CHECK(format_local(at(1'792'888'200'123'456), "Europe/Berlin") ==
          "2026-10-25 02:30:00.123 CEST");
    CHECK(format_local(at(1'792'891'800'123'456), "Europe/Berlin", 6) ==
          "2026-10-25 02:30:00.123456 CET");
    for (const char* utc : {"UTC", "Etc/UTC", "Etc/Zulu"})
        CHECK(format_local(at(1'792'891'800'123'456), utc) == "2026-10-25 01:30:00.123 UTC");
    CHECK(format_utc(at(1'792'891'800'999'999), 0) == "2026-10-25T01:30:00Z");
    CHECK(format_utc(at(-1), 6) == "1969-12-31T23:59:59.999999Z");
}

TEST_CASE("An unknown zone is told apart from a known one, and shows UTC") {
    CHECK(is_time_zone("Europe/Berlin"));
    CHECK(is_time_zone("Etc/UTC"));
    CHECK_FALSE(is_time_zone("Europe/Atlantis"));
    CHECK_FALSE(is_time_zone(""));
    CHECK(format_local(at(0), "Europe/Atlantis", 0) == "1970-01-01T00:00:00Z");
    CHECK(display_zone("Asia/Tokyo") == "Asia/Tokyo");
    CHECK(is_time_zone(display_zone("")));
}

TEST_CASE("Text from outside cannot move the cursor or break UTF-8") {
    CHECK(printable("plain ü €") == "plain ü €");
    CHECK(printable("a\x1b[2Jb\nc\x7f") == "a\\x1B[2Jb\\x0Ac\\x7F");
    CHECK(printable("\xff\xc0\x80\xed\xa0\x80") == "\\xFF\\xC0\\x80\\xED\\xA0\\x80");
    CHECK(printable("\xc2\x9b") == "\\xC2\\x9B");
    CHECK(printable("\xe2\x82") == "\\xE2\\x82");
    // Marks that turn the direction of what follows, and separators of lines.
    CHECK(printable("a\u202eb\u2066c\u200fd\u2028e") ==
          "a\\xE2\\x80\\xAEb\\xE2\\x81\\xA6c\\xE2\\x80\\x8Fd\\xE2\\x80\\xA8e");
    CHECK(printable("\u2027\u202f\u200d\u2065\u206a\u00a0") ==
          "\u2027\u202f\u200d\u2065\u206a\u00a0");
}

TEST_CASE("Table columns line up by code points and lines have no blanks at their end") {
    Table table({"NAME", "N"}, {Table::Align::left, Table::Align::right});
    table.add_row({"größer", "5"});
    table.add_row({"x", "1 000"});
    table.add_row({"y"});
    CHECK(table.text() == "NAME        N\ngrößer      5\nx       1 000\ny\n");
}

TEST_CASE("Colour follows the flag first, then NO_COLOR, then CLICOLOR_FORCE") {
    Globals globals;
    setenv("NO_COLOR", "1", 1);
    setenv("CLICOLOR_FORCE", "1", 1);
    CHECK_FALSE(Style::of(globals, 1).colored());
    globals.color = ColorMode::always;
    CHECK(Style::of(globals, 1).good("ok") == "\033[32mok\033[0m");
    globals.color = ColorMode::automatic;
    unsetenv("NO_COLOR");
    CHECK(Style::of(globals, 1).colored());
    globals.color = ColorMode::never;
    CHECK(Style::of(globals, 1).bad("x") == "x");
    unsetenv("CLICOLOR_FORCE");
}

}  // namespace
}  // namespace walvault::agent
