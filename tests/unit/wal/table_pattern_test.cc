#include "wal/table_pattern.h"

#include <doctest/doctest.h>

namespace walvault::wal {
namespace {

using Choice = TablePatterns::Choice;

TablePatterns patterns(const std::vector<std::string>& texts) {
    auto parsed = TablePatterns::parse(texts);
    if (!parsed) FAIL(parsed.error().message);
    return *parsed;
}

TEST_CASE("the last pattern that fits decides") {
    const TablePatterns list = patterns({"public.*", "!public.s*", "public.sales"});
    CHECK(list.select("public", "orders"));
    CHECK_FALSE(list.select("public", "sessions"));
    CHECK(list.select("public", "sales"));
    CHECK_FALSE(list.select("private", "orders"));
    CHECK(list.choice("public", "sessions") == Choice::left_out);
    CHECK(list.choice("private", "orders") == Choice::unmentioned);
    CHECK_FALSE(patterns({}).select("public", "orders"));
}

TEST_CASE("names are folded and quoted as in SQL") {
    CHECK(patterns({"Public.ORDERS"}).select("public", "orders"));
    CHECK_FALSE(patterns({"public.\"Orders\""}).select("public", "orders"));
    CHECK(patterns({"public.\"Orders\""}).select("public", "Orders"));
    CHECK(patterns({"\"a.b\".\"c\"\"d e\""}).select("a.b", "c\"d e"));
    CHECK(patterns({"x\"Y\"z.t"}).select("xYz", "t"));
    // In quotes they stand for themselves.
    CHECK_FALSE(patterns({"public.\"a*\""}).select("public", "abc"));
    CHECK(patterns({"public.\"a*?\""}).select("public", "a*?"));
    CHECK(patterns({"public.stra\xc3\x9f"
                    "e"})
              .select("public",
                      "stra\xc3\x9f"
                      "e"));
}

TEST_CASE("a star is any text, a question mark one character") {
    const TablePatterns list = patterns({"*.a*b?c*"});
    CHECK(list.select("any", "abxc"));
    CHECK(list.select("", "axxbbyczz"));
    CHECK(list.select("any",
                      "ab\xc3\xa9"
                      "c"));
    CHECK_FALSE(list.select("any", "abc"));
    CHECK_FALSE(list.select("any", "xabxc"));
    CHECK(patterns({"public.?"}).select("public", "\xe2\x82\xac"));
    CHECK_FALSE(patterns({"public.?"}).select("public", ""));
    CHECK_FALSE(patterns({"public.??"}).select("public", "\xe2\x82\xac"));
    CHECK(patterns({"public.**"}).select("public", ""));
    // Names of no encoding: a byte is a character.
    CHECK(patterns({"public.t?"}).select("public", "t\xff"));
    const std::string long_name(63, 'a');
    CHECK_FALSE(patterns({"*.*a*a*a*a*a*a*a*a*a*a*a*a*b"}).select("public", long_name));
}

TEST_CASE("a pattern that is none is refused with what is wrong with it") {
    struct Refusal {
        const char* text;
        const char* what;
    };
    for (const Refusal& refusal : {Refusal{"orders", "does not name a schema and a table"},
                                   {"", "does not name a schema and a table"},
                                   {"!", "does not name a schema and a table"},
                                   {"a.b.c", "does not name a schema and a table"},
                                   {".b", "has an empty name"},
                                   {"a.", "has an empty name"},
                                   {"a.\"\"", "has an empty name"},
                                   {"a.\"b", "has a quote that does not end"},
                                   {"a.b c", "has ' ' outside of quotes"},
                                   {"!!a.b", "has '!' outside of quotes"}}) {
        auto parsed = TablePatterns::parse({"public.*", refusal.text});
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == Errc::invalid_argument);
        CHECK(parsed.error().message ==
              "the table pattern \"" + std::string(refusal.text) + "\" " + refusal.what);
        CHECK_FALSE(parsed.error().hint.empty());
    }
    CHECK_FALSE(TablePatterns::parse({std::string("a.b\0c", 5)}));
}

}  // namespace
}  // namespace walvault::wal
