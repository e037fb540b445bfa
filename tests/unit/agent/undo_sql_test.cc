#include "agent/undo_sql.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

namespace walvault::agent {
namespace {

using Kind = RowValue::Kind;
using Change = JournalRecordKind;

bool has(const UndoStatement& undo, const std::string& piece) {
    INFO(undo.sql);
    INFO(undo.refusal);
    INFO(piece);
    const bool found = undo.sql.find(piece) != std::string::npos;
    CHECK(found);
    return found;
}

TEST_CASE("Names and texts stand in SQL as they are") {
    CHECK(sql_identifier("a \"b\"") == "\"a \"\"b\"\"\"");
    CHECK(sql_literal("it's") == "'it''s'");
    CHECK(sql_literal("a\\b'c") == "E'a\\\\b''c'");
    CHECK(sql_literal("a\rb\né") == "E'a\\x0db\\x0aé'");
    CHECK(sql_literal("a\u0085b\u202ec") == "E'a\\u0085b\\u202ec'");
    CHECK(sql_identifier("a\\b") == "\"a\\b\"");
    CHECK(sql_identifier("a\nb\\c\"d\u202eé\u009b") == "U&\"a\\000Ab\\\\c\"\"d\\202Eé\\009B\"");
    auto relation = made_relation(1, "odd; \"t\"");
    relation.set_schema("my schema");
    relation.mutable_columns(1)->set_name("no te");
    const auto undo =
        undo_statement(Change::inserted, relation,
                       {{}, {text_value("1"), text_value("x'); DROP TABLE t; --")}}, 7);
    has(undo,
        "DELETE FROM ONLY \"my schema\".\"odd; \"\"t\"\"\" WHERE \"id\" = '1' AND \"no te\" IS NOT "
        "DISTINCT FROM 'x''); DROP TABLE t; --';");
}

TEST_CASE("The value that would end the block does not") {
    const auto relation = made_relation(1, "t");
    const auto undo =
        undo_statement(Change::inserted, relation,
                       {{}, {text_value("1"), text_value("$walvault$ $walvault1$")}}, 7);
    CHECK(undo.sql.substr(0, 15) == "DO $walvault2$\n");
    CHECK(undo.sql.substr(undo.sql.size() - 17) == "END $walvault2$;\n");
}

TEST_CASE("A deleted row is inserted with every column, identity columns too") {
    const auto relation = made_relation(1, "t", 3);
    const auto undo = undo_statement(Change::deleted, relation,
                                     {{text_value("1"), null_value(), text_value("")}, {}}, 7);
    has(undo,
        "INSERT INTO \"public\".\"t\" (\"id\", \"note\", \"note2\") OVERRIDING SYSTEM VALUE "
        "VALUES ('1', NULL, '');");
    has(undo, "undo of the delete of %s %s in transaction 7");
    has(undo, "'(id)=(1)'");
    has(undo, "IF hit_rows <> 1 THEN");
}

TEST_CASE("A deleted row of which something is not known is not put back in part") {
    const auto relation = made_relation(1, "t", 3);
    const auto undo = undo_statement(Change::deleted, relation,
                                     {{text_value("1"), RowValue{}, text_value("x")}, {}}, 7);
    CHECK(undo.sql.empty());
    CHECK(undo.refusal == "it is not known what was in column \"note\"");
}

TEST_CASE("An updated row gets back what changed, by the key and all that is known of it") {
    const auto relation = made_relation(1, "t", 4);
    const auto undo = undo_statement(
        Change::updated, relation,
        {{text_value("1"), text_value("a"), text_value("same"), RowValue{}},
         {text_value("1"), null_value(), text_value("same"), RowValue{Kind::unchanged}}},
        7);
    has(undo,
        "UPDATE ONLY \"public\".\"t\" SET \"note\" = 'a' WHERE \"id\" = '1' AND \"note\" IS NOT "
        "DISTINCT FROM NULL AND \"note2\" IS NOT DISTINCT FROM 'same';");
    // The unchanged TOASTed value is neither compared nor set.
    CHECK(undo.sql.find("note3") == std::string::npos);
}

TEST_CASE("A key that was changed is found by the new one and set to the old one") {
    const auto relation = made_relation(1, "t");
    const auto undo =
        undo_statement(Change::updated, relation,
                       {{text_value("1"), text_value("a")}, {text_value("2"), text_value("a")}}, 7);
    has(undo, "SET \"id\" = '1' WHERE \"id\" = '2' AND \"note\" IS NOT DISTINCT FROM 'a';");
}

TEST_CASE("An update whose old value is not known is refused by the column's name") {
    const auto relation = made_relation(1, "t");
    const auto undo =
        undo_statement(Change::updated, relation,
                       {{text_value("1"), RowValue{}}, {text_value("1"), text_value("b")}}, 7);
    CHECK(undo.sql.empty());
    CHECK(undo.refusal.find("\"note\"") != std::string::npos);
    // Nothing changed that is known: nothing to do, and nothing to say.
    const auto nothing = undo_statement(
        Change::updated, relation,
        {{text_value("1"), RowValue{}}, {text_value("1"), RowValue{Kind::unchanged}}}, 7);
    CHECK(nothing.sql.empty());
    CHECK(nothing.refusal.empty());
}

TEST_CASE("Types without an equality that means the same are compared by their text") {
    auto relation = made_relation(1, "t", 3);
    relation.mutable_columns(1)->set_type_oid(114);   // json
    relation.mutable_columns(2)->set_type_oid(1009);  // text[]
    const auto undo = undo_statement(
        Change::inserted, relation,
        {{}, {text_value("1"), text_value("{\"a\": 1}"), text_value("{a,NULL}")}}, 7);
    has(undo,
        "(\"note\" IS DISTINCT FROM NULL AND pg_catalog.format('%s', \"note\") = '{\"a\": 1}')");
    has(undo,
        "(\"note2\" IS DISTINCT FROM NULL AND pg_catalog.format('%s', \"note2\") = '{a,NULL}')");
    const auto null = undo_statement(Change::inserted, relation,
                                     {{}, {text_value("1"), null_value(), null_value()}}, 7);
    has(null, "\"note\" IS NOT DISTINCT FROM NULL AND \"note2\" IS NOT DISTINCT FROM NULL");
}

TEST_CASE("Of rows that are the same in everything one is hit") {
    auto relation = made_relation(1, "t");
    relation.set_identity(pb::JournalRelation::FULL);
    relation.mutable_columns(0)->set_is_primary_key(false);
    const auto undo =
        undo_statement(Change::inserted, relation, {{}, {text_value("1"), text_value("a")}}, 7);
    has(undo,
        "DELETE FROM ONLY \"public\".\"t\" WHERE ctid = (SELECT ctid FROM ONLY "
        "\"public\".\"t\" WHERE \"id\" IS NOT DISTINCT FROM '1' AND \"note\" IS NOT DISTINCT FROM "
        "'a' LIMIT 1);");
    const auto unknown =
        undo_statement(Change::inserted, relation, {{}, {text_value("1"), RowValue{}}}, 7);
    CHECK(unknown.sql.empty());
    CHECK_FALSE(unknown.refusal.empty());
}

TEST_CASE("Masked columns are left alone, and that is told") {
    const auto relation = made_relation(1, "t", 3);
    const RowValue masked{Kind::masked, "ab"};
    const auto deleted = undo_statement(Change::deleted, relation,
                                        {{text_value("1"), masked, text_value("x")}, {}}, 7);
    CHECK(deleted.leaves_masked);
    has(deleted, "(\"id\", \"note2\") OVERRIDING SYSTEM VALUE VALUES ('1', 'x')");
    const auto updated =
        undo_statement(Change::updated, relation,
                       {{text_value("1"), masked, text_value("x")},
                        {text_value("1"), RowValue{Kind::masked, "cd"}, text_value("y")}},
                       7);
    CHECK(updated.leaves_masked);
    has(updated, "SET \"note2\" = 'x' WHERE \"id\" = '1' AND \"note2\" IS NOT DISTINCT FROM 'y'");
}

TEST_CASE("Generated columns are compared, and neither set nor inserted") {
    auto relation = made_relation(1, "t", 3);
    relation.mutable_columns(2)->set_is_generated(true);
    const auto deleted =
        undo_statement(Change::deleted, relation, {{text_value("1"), text_value("a"), {}}, {}}, 7);
    has(deleted, "(\"id\", \"note\") OVERRIDING SYSTEM VALUE VALUES ('1', 'a')");
    const auto updated = undo_statement(Change::updated, relation,
                                        {{text_value("1"), text_value("a"), text_value("A")},
                                         {text_value("1"), text_value("b"), text_value("B")}},
                                        7);
    has(updated,
        "SET \"note\" = 'a' WHERE \"id\" = '1' AND \"note\" IS NOT DISTINCT FROM 'b' AND "
        "\"note2\" IS NOT DISTINCT FROM 'B';");
}

TEST_CASE("What is not undone is named by the statement that stops the script") {
    CHECK(undo_stop(1).find("'1 change is not taken back") != std::string::npos);
    CHECK(undo_stop(12).find("'12 changes are not taken back") != std::string::npos);
    CHECK(undo_stop(12).find("RAISE EXCEPTION") != std::string::npos);
}

}  // namespace
}  // namespace walvault::agent
