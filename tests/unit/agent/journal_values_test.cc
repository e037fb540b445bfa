#include "agent/journal_values.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

namespace walvault::agent {
namespace {

using Kind = RowValue::Kind;

// A change as the reader hands it out; the tuples live in it.
struct Made {
    pb::JournalRelation relation = made_relation(1, "t", 3);
    ByteBuffer old_tuple, new_tuple;
    RowChange read(JournalRecordKind kind, char old_kind = 0) {
        storage::JournalChange change;
        change.kind = kind;
        change.relation = &relation;
        change.old_kind = old_kind;
        change.old_tuple = old_tuple;
        change.new_tuple = new_tuple;
        auto read = read_change(change);
        REQUIRE(read);
        return *read;
    }
};

TEST_CASE("The old row of a delete by key knows the key alone, and no NULL beside it") {
    Made made;
    made.old_tuple = made_tuple({"7", std::nullopt, std::nullopt});
    const RowChange read = made.read(JournalRecordKind::deleted, 'K');
    CHECK(read.before[0] == text_value("7"));
    CHECK(read.before[1].kind == Kind::unknown);
    CHECK(read.now.empty());
    const RowChange whole = made.read(JournalRecordKind::deleted, 'O');
    CHECK(whole.before[1] == null_value());
}

TEST_CASE("An update without its old row has the key it has now; unchanged values are not NULL") {
    Made made;
    made.new_tuple = made_tuple({"7", "x", kUnchanged});
    RowChange read = made.read(JournalRecordKind::updated);
    CHECK(read.before[0] == text_value("7"));
    CHECK(read.before[1].kind == Kind::unknown);
    CHECK(read.now[2].kind == Kind::unchanged);
    resolve_unchanged(read.now, read.before);
    CHECK(read.now[2].kind == Kind::unknown);
    made.old_tuple = made_tuple({"7", "w", "long"});
    CHECK(made.read(JournalRecordKind::updated, 'O').now[2] == text_value("long"));
}

TEST_CASE("What is not known is filled from the same row") {
    Row row{text_value("1"), RowValue{}, RowValue{Kind::unchanged}, null_value()};
    fill_unknown(row, {text_value("9"), text_value("a"), null_value(), text_value("b")});
    CHECK(row == Row{text_value("1"), text_value("a"), null_value(), null_value()});
}

TEST_CASE("A row in another version of its table is matched by names") {
    pb::JournalRelation before = made_relation(1, "t", 3);
    pb::JournalRelation now = before;
    now.mutable_columns()->DeleteSubrange(1, 1);
    now.add_columns()->set_name("new");
    const Row row = as_in({text_value("1"), text_value("a"), text_value("b")}, before, now);
    CHECK(row[0] == text_value("1"));
    CHECK(row[1] == text_value("b"));
    CHECK(row[2].kind == Kind::unknown);
}

TEST_CASE("A value of a column that has another type since is not known") {
    const auto carried = [](std::uint32_t from, std::int32_t from_typmod, std::uint32_t to,
                            std::int32_t to_typmod) {
        pb::JournalRelation before = made_relation(1, "t");
        pb::JournalRelation now = before;
        before.mutable_columns(1)->set_type_oid(from);
        before.mutable_columns(1)->set_typmod(from_typmod);
        now.mutable_columns(1)->set_type_oid(to);
        now.mutable_columns(1)->set_typmod(to_typmod);
        const Row row = as_in({text_value("1"), text_value("a")}, before, now);
        CHECK(row[0] == text_value("1"));
        CHECK((row[1] == text_value("a") || row[1].kind == Kind::unknown));
        return row[1].is_known();
    };
    constexpr std::uint32_t kInt4 = 23, kInt8 = 20, kText = 25, kChar = 1042, kVarchar = 1043;
    constexpr std::uint32_t kNumeric = 1700, kTimestamp = 1114, kTimestamptz = 1184;
    const auto numeric = [](int precision, int scale) { return (precision << 16 | scale) + 4; };
    CHECK(carried(kText, -1, kText, -1));
    CHECK(carried(kVarchar, 14, kVarchar, 24));
    CHECK(carried(kVarchar, 14, kVarchar, -1));
    CHECK(carried(kVarchar, 14, kText, -1));
    CHECK(carried(kText, -1, kVarchar, -1));
    CHECK(carried(kInt4, -1, kInt8, -1));
    CHECK(carried(kNumeric, numeric(10, 2), kNumeric, -1));
    CHECK(carried(kNumeric, numeric(10, 2), kNumeric, numeric(12, 2)));
    CHECK_FALSE(carried(kNumeric, numeric(10, 2), kNumeric, numeric(12, 3)));
    CHECK_FALSE(carried(kNumeric, numeric(12, 2), kNumeric, numeric(10, 2)));
    CHECK_FALSE(carried(kNumeric, -1, kNumeric, numeric(12, 2)));
    CHECK_FALSE(carried(kVarchar, 24, kVarchar, 14));
    CHECK_FALSE(carried(kVarchar, -1, kVarchar, 14));
    CHECK_FALSE(carried(kText, -1, kVarchar, 14));
    CHECK_FALSE(carried(kChar, 14, kText, -1));
    CHECK_FALSE(carried(kText, -1, kInt4, -1));
    CHECK_FALSE(carried(kInt8, -1, kInt4, -1));
    CHECK_FALSE(carried(kInt4, -1, kText, -1));
    CHECK_FALSE(carried(kTimestamp, -1, kTimestamptz, -1));
    CHECK_FALSE(carried(kTimestamp, -1, kTimestamp, 0));
}

TEST_CASE("Keys of integers sort by value, of texts by bytes, and none begins another") {
    pb::JournalRelation relation = made_relation(1, "t");
    auto key = [&](const char* id) {
        return *sortable_key(relation, {text_value(id), RowValue{}});
    };
    CHECK(key("-5") < key("-4"));
    CHECK(key("-1") < key("0"));
    CHECK(key("9") < key("10"));
    CHECK(key("9223372036854775806") < key("9223372036854775807"));
    CHECK_FALSE(sortable_key(relation, {RowValue{}, text_value("x")}));

    relation.mutable_columns(0)->set_is_primary_key(false);
    relation.mutable_columns(0)->set_is_identity(false);
    relation.mutable_columns(0)->set_type_oid(25);
    auto whole = [&](const std::string& a, const std::string& b) {
        return *sortable_key(relation, {text_value(a), text_value(b)});
    };
    CHECK(whole("a", "bc") != whole("ab", "c"));
    CHECK(whole("a", "z") < whole("ab", "a"));
    CHECK(whole(std::string("a\0", 2), "b") != whole("a", std::string("\0b", 2)));
    CHECK(*sortable_key(relation, {null_value(), text_value("")}) != whole("", ""));
    CHECK_FALSE(sortable_key(relation, {text_value("a"), RowValue{Kind::unchanged}}));
}

TEST_CASE("A table without a usable identity is known for inserts only") {
    pb::JournalRelation relation = made_relation(1, "t");
    CHECK_FALSE(is_insert_only(relation));
    relation.mutable_columns(0)->set_is_primary_key(false);
    CHECK(is_insert_only(relation));
    relation.set_identity(pb::JournalRelation::INDEX);
    CHECK_FALSE(is_insert_only(relation));
    relation.mutable_columns(0)->set_is_identity(false);
    CHECK(is_insert_only(relation));
    relation.set_identity(pb::JournalRelation::FULL);
    CHECK_FALSE(is_insert_only(relation));
    relation.set_identity(pb::JournalRelation::NOTHING);
    CHECK(is_insert_only(relation));
}

TEST_CASE("A row packed reads back, and damaged bytes do not") {
    const Row row{text_value("a"),
                  null_value(),
                  RowValue{},
                  text_value(""),
                  RowValue{Kind::masked, "ff"},
                  text_value(std::string("\0x", 2))};
    const std::string bytes = pack_row(row);
    auto read = unpack_row(bytes);
    REQUIRE(read);
    CHECK(*read == row);
    CHECK_FALSE(unpack_row(bytes.substr(0, bytes.size() - 1)));
    CHECK_FALSE(unpack_row("\x7f" + bytes));
}

}  // namespace
}  // namespace walvault::agent
