#include "agent/journal_text.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

namespace walvault::agent {
namespace {

using Kind = RowValue::Kind;

TEST_CASE("A value on a terminal tells text from NULL, unknown and masked, and no byte escapes") {
    CHECK(value_text(text_value("it's")) == "'it''s'");
    CHECK(value_text(text_value("NULL")) == "'NULL'");
    CHECK(value_text(null_value()) == "NULL");
    CHECK(value_text(RowValue{}) == "?");
    CHECK(value_text(RowValue{Kind::unchanged}) == "?");
    CHECK(value_text(RowValue{Kind::masked, "00ff"}) == "*");
    CHECK(value_text(text_value("\x1b[2J")) == "'\\x1B[2J'");
    // Cut between characters, not in one.
    std::string text = "x";
    for (int i = 0; i < 100; ++i)
        text += "ä";
    CHECK(value_text(text_value(text)).find("\\x") == std::string::npos);
    CHECK(value_text(text_value(text)).find("… (201 B)") != std::string::npos);
}

TEST_CASE("An update is told by what changed, and what it was is never made up") {
    const auto relation = made_relation(1, "t", 3);
    RowChange change{{text_value("1"), text_value("a"), text_value("z")},
                     {text_value("1"), text_value("b"), RowValue{Kind::unchanged}}};
    CHECK(change_text(relation, change) == "note: 'a' -> 'b'");
    change.before[1] = RowValue{};
    CHECK(change_text(relation, change) == "note: ? -> 'b'");
    change.now[1] = null_value();
    CHECK(change_text(relation, change) == "note: ? -> NULL");
    change.before.clear();
    CHECK(change_text(relation, change) == "id='1', note=NULL");
    CHECK(key_text(relation, change.now) == "(id)=(1)");
}

TEST_CASE("In JSON what is not known is named, not NULL") {
    const auto relation = made_relation(1, "t", 5);
    nlohmann::ordered_json left_out;
    const auto json = row_json(relation,
                               {text_value("1"), null_value(), RowValue{},
                                RowValue{Kind::unchanged}, RowValue{Kind::masked, "x"}},
                               &left_out);
    CHECK(json.dump() == R"({"id":"1","note":null})");
    CHECK(left_out.dump() == R"({"unknown":["note2"],"unchanged":["note3"],"masked":["note4"]})");
    CHECK(key_json(relation, {text_value("1")}).dump() == R"({"id":"1"})");
}

TEST_CASE("CSV quotes what has to be quoted, and tells NULL from an empty text") {
    CHECK(csv_line({"a", std::nullopt, "", "b,c", "d\"e", "f\ng", "NULL"}) ==
          "a,,\"\",\"b,c\",\"d\"\"e\",\"f\ng\",NULL\n");
}

TEST_CASE("COPY's text is escaped as COPY FROM takes it") {
    CHECK(copy_line({text_value("a\tb"), null_value(), text_value("\\N"), text_value("\r\n\b\f\v"),
                     text_value(""), text_value("\\.")}) ==
          "a\\tb\t\\N\t\\\\N\t\\r\\n\\b\\f\\v\t\t\\\\.\n");
    CHECK(copy_line({text_value("")}) == "\n");
}

TEST_CASE("Names that need quotes have them") {
    CHECK(table_text("public", "orders") == "public.orders");
    CHECK(table_text("My Schema", "a\"b") == "\"My Schema\".\"a\"\"b\"");
    CHECK(table_text("public", "1st") == "public.\"1st\"");
}

}  // namespace
}  // namespace walvault::agent
