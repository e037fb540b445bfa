#include "wal/walsender_text.h"

#include <doctest/doctest.h>

namespace walvault::wal {
namespace {

using std::chrono::milliseconds;

QueryResult rows(std::vector<std::vector<std::optional<std::string>>> values) {
    QueryResult result;
    result.kind = QueryResult::Kind::rows;
    result.rows = std::move(values);
    return result;
}

TEST_CASE("sizes are read with PostgreSQL's units") {
    CHECK(*parse_size_bytes("16MB") == 16_MiB);
    CHECK(*parse_size_bytes("1GB") == 1_GiB);
    CHECK(*parse_size_bytes("8kB") == 8_KiB);
    CHECK(*parse_size_bytes("8192") == 8192);
    CHECK(*parse_size_bytes("2TB") == 2048_GiB);
}

TEST_CASE("sizes that are none are corrupt") {
    for (const char* text :
         {"", "MB", "16 MB", "16mb", "-1", "99999999999999999999", "18446744073709551615kB"}) {
        CAPTURE(text);
        auto size = parse_size_bytes(text);
        REQUIRE_FALSE(size);
        CHECK(size.error().code == Errc::corrupt);
    }
}

TEST_CASE("durations are read with PostgreSQL's units") {
    CHECK(*parse_duration("1min") == milliseconds(60000));
    CHECK(*parse_duration("3s") == milliseconds(3000));
    CHECK(*parse_duration("1500ms") == milliseconds(1500));
    CHECK(*parse_duration("0") == milliseconds(0));
    CHECK(*parse_duration("2h") == milliseconds(7200000));
    CHECK(*parse_duration("1d") == milliseconds(86400000));
    CHECK_FALSE(parse_duration("1 week"));
    CHECK_FALSE(parse_duration("-1"));
    CHECK_FALSE(parse_duration("4294967296"));
}

TEST_CASE("the row after a stream names the next timeline") {
    QueryResult command;
    auto end = timeline_end_of({rows({{"3", "0/30471C8"}}), command});
    REQUIRE(end);
    REQUIRE(*end);
    CHECK((*end)->next_timeline == 3);
    CHECK((*end)->next_start_lsn == Lsn{0x30471C8});
}

TEST_CASE("a stream that ended without a row names no timeline") {
    QueryResult command;
    auto end = timeline_end_of({command});
    REQUIRE(end);
    CHECK_FALSE(end->has_value());
}

TEST_CASE("a next timeline that is damaged is corrupt") {
    std::vector<QueryResult> damaged{
        rows({}), rows({{"2"}}), rows({{std::nullopt, "0/1"}}), rows({{"0", "0/1"}}), rows({{"2", "0/0"}}),
        rows({{"2", "nowhere"}}), rows({{"-2", "0/1"}}), rows({{"2", "0/1"}, {"3", "0/2"}})};
    for (const QueryResult& result : damaged) CHECK_FALSE(timeline_end_of({result}));
}

TEST_CASE("quoting doubles the quote and nothing else") {
    CHECK(quote_literal("it's") == "'it''s'");
    CHECK(quote_literal("\\ \" plain") == "'\\ \" plain'");
    CHECK(quote_identifier("a\"b'c") == "\"a\"\"b'c\"");
}

}  // namespace
}  // namespace walvault::wal
