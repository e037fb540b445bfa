#include "agent/journal_names.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

namespace walvault::agent {
namespace {

std::vector<storage::JournalTableRecord> tables() {
    return {{10, "public", "orders", {}}, {11, "public", "order lines", {}},
            {12, "shop", "orders", {}},   {13, "public", "a.b", {}},
            {14, "shop", "items", {}},    {15, "shop", "items", {}}};
}
std::string error_of(const std::string& name) {
    auto found = matching_tables(name, tables());
    REQUIRE_FALSE(found);
    return found.error().message + " | " + found.error().hint;
}

TEST_CASE("A table is found by its name, with its schema, in quotes, and by its oid") {
    CHECK(matching_tables("public.orders", tables())->front().oid == 10);
    CHECK(matching_tables("order lines", tables())->front().oid == 11);
    CHECK(matching_tables("public.\"a.b\"", tables())->front().oid == 13);
    CHECK(matching_tables("\"a.b\"", tables())->front().oid == 13);
    CHECK(matching_tables("oid:12", tables())->front().schema == "shop");
    // Dropped and made again.
    CHECK(matching_tables("items", tables())->size() == 2);
}

TEST_CASE("A name that is not known gives the nearest, one of several schemas all of them") {
    CHECK(error_of("ordres").find("did you mean \"orders\"") != std::string::npos);
    CHECK(error_of("public.ordres").find("did you mean \"public.orders\"") != std::string::npos);
    CHECK(error_of("orders").find("public.orders, shop.orders") != std::string::npos);
    CHECK(matching_tables("orders", tables()).error().code == Errc::ambiguous);
    for (const char* bad : {"", ".", "a.", "a.b.c", "\"a", "oid:", "oid:x"})
        CHECK(parse_table_name(bad).error().code == Errc::invalid_argument);
    CHECK(error_of("\x1b[2J").find('\x1b') == std::string::npos);
}

TEST_CASE("Values of a key may have commas and equal signs") {
    CHECK(*parse_named_values("id=4711") == NamedValues{{"id", "4711"}});
    CHECK(*parse_named_values("a=1,b=x y") == NamedValues{{"a", "1"}, {"b", "x y"}});
    CHECK(*parse_named_values("name=Smith, John") == NamedValues{{"name", "Smith, John"}});
    CHECK(*parse_named_values("a=1\\,b=2") == NamedValues{{"a", "1,b=2"}});
    CHECK(*parse_named_values("a=x=y") == NamedValues{{"a", "x=y"}});
    CHECK(*parse_named_values("a=") == NamedValues{{"a", ""}});
    for (const char* bad : {"", "id", "=1"})
        CHECK(parse_named_values(bad).error().code == Errc::invalid_argument);
}

TEST_CASE("A key is whole, and its columns are those of the table") {
    auto relation = made_relation(1, "t", 3);
    relation.mutable_columns(2)->set_is_primary_key(true);
    relation.mutable_columns(2)->set_is_identity(true);
    CHECK(*key_values(relation, {{"note2", "b"}, {"id", "1"}}) ==
          std::vector<std::string>{"1", "b"});
    CHECK(key_values(relation, {{"id", "1"}}).error().code == Errc::invalid_argument);
    CHECK(key_values(relation, {{"id", "1"}, {"note2", "b"}, {"note", "c"}}).error().code ==
          Errc::invalid_argument);
    auto unknown = key_values(relation, {{"id", "1"}, {"noet2", "b"}});
    CHECK(unknown.error().code == Errc::not_found);
    CHECK(unknown.error().message.find("did you mean \"note2\"") != std::string::npos);
}

TEST_CASE("A transaction is named by its number") {
    CHECK(*parse_xid("xid:731") == 731);
    CHECK(*parse_xid("731") == 731);
    for (const char* bad : {"", "xid:", "0", "xid:-1", "12a", "99999999999"})
        CHECK(parse_xid(bad).error().code == Errc::invalid_argument);
}

}  // namespace
}  // namespace walvault::agent
