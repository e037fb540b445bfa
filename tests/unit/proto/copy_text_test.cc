#include "proto/copy_text.h"

#include <doctest/doctest.h>

using namespace walvault;
using pgoutput::ValueKind;

TEST_CASE("a row is split at tabs, a null is told from an empty value") {
    CopyTextReader reader;
    auto row = reader.read(as_bytes("1\t\\N\t\tlast\n"), 4);
    REQUIRE(row);
    CHECK((*row)[0].bytes == "1");
    CHECK((*row)[1].kind == ValueKind::null);
    CHECK((*row)[2].kind == ValueKind::text);
    CHECK((*row)[2].bytes.empty());
    CHECK((*row)[3].bytes == "last");
}

TEST_CASE("what is escaped is read as it was") {
    CopyTextReader reader;
    auto row = reader.read(as_bytes("a\\tb\\nc\\\\N\t\\\\N\t\\b\\f\\r\\v\t\xff\t\\x\n"), 5);
    REQUIRE(row);
    CHECK((*row)[0].bytes == "a\tb\nc\\N");
    CHECK((*row)[1].bytes == "\\N");
    CHECK((*row)[1].kind == ValueKind::text);
    CHECK((*row)[2].bytes == "\b\f\r\v");
    CHECK((*row)[3].bytes == "\xff");
    CHECK((*row)[4].bytes == "x");
}

TEST_CASE("a table without columns has rows, and one of a single empty text too") {
    CopyTextReader reader;
    auto none = reader.read(as_bytes("\n"), 0);
    REQUIRE(none);
    CHECK(none->empty());
    auto one = reader.read(as_bytes("\n"), 1);
    REQUIRE(one);
    REQUIRE(one->size() == 1);
    CHECK((*one)[0].kind == ValueKind::text);
}

TEST_CASE("a row with too few or too many values, or cut off, is refused") {
    CopyTextReader reader;
    CHECK(reader.read(as_bytes("1\t2\n"), 3).error().message ==
          "a row of a table, of 4 bytes, has 2 values instead of 3");
    CHECK(reader.read(as_bytes("1\t2\n"), 1).error().message ==
          "a row of a table, of 4 bytes, has more than 1 values");
    CHECK(reader.read(as_bytes("1\t2"), 2).error().message ==
          "a row of a table, of 3 bytes, does not end");
    CHECK(reader.read({}, 0).error().code == Errc::corrupt);
    CHECK(reader.read(as_bytes("1\n"), 0).error().code == Errc::corrupt);
    CHECK(reader.read(as_bytes("1\\\n"), 1).error().message ==
          "a row of a table, of 3 bytes, ends a value with a backslash");
}
