#include "agent/row_versions.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"

namespace walvault::agent {
namespace {

using Change = JournalRecordKind;
using Kind = RowValue::Kind;

struct Versions {
    pb::JournalRelation relation = made_relation(1, "t", 3);
    RowVersions versions{NamedKey{{"id"}, {"7"}}};
    std::uint64_t lsn = 100;

    RowVersion add(Change kind, const std::optional<MadeValues>& before,
                   const std::optional<MadeValues>& now, char old_kind = 'K') {
        ByteBuffer old_tuple = before ? made_tuple(*before) : ByteBuffer{};
        ByteBuffer new_tuple = now ? made_tuple(*now) : ByteBuffer{};
        storage::JournalChange change;
        change.kind = kind;
        change.relation = &relation;
        change.old_kind = before ? old_kind : '\0';
        change.old_tuple = old_tuple;
        change.new_tuple = new_tuple;
        if (kind == Change::truncated) change.truncated = {&relation};
        auto version = versions.add({Lsn{lsn}, Lsn{lsn + 8}, WallTime(Micros(1)), 9}, change);
        REQUIRE(version);
        REQUIRE(*version);
        return **version;
    }
};

TEST_CASE("Values that were not sent are those of the versions before") {
    Versions row;
    row.add(Change::inserted, {}, MadeValues{"7", "a", "long"});
    RowVersion version = row.add(Change::updated, {}, MadeValues{"7", "b", kUnchanged});
    CHECK(version.change.before == Row{text_value("7"), text_value("a"), text_value("long")});
    CHECK(version.change.now == Row{text_value("7"), text_value("b"), text_value("long")});
    version = row.add(Change::updated, {}, MadeValues{"7", std::nullopt, kUnchanged});
    CHECK(version.change.now[2] == text_value("long"));
    version = row.add(Change::deleted, MadeValues{"7", std::nullopt, std::nullopt}, {});
    CHECK(version.change.before == Row{text_value("7"), null_value(), text_value("long")});
}

TEST_CASE("What no version before tells stays unknown, and is not NULL") {
    Versions row;
    RowVersion version = row.add(Change::updated, {}, MadeValues{"7", "b", kUnchanged});
    CHECK(version.change.before[1].kind == Kind::unknown);
    CHECK(version.change.now[2].kind == Kind::unknown);
    version = row.add(Change::updated, {}, MadeValues{"7", "c", kUnchanged});
    CHECK(version.change.before[1] == text_value("b"));
    CHECK(version.change.now[2].kind == Kind::unknown);
    row.versions.forget();
    CHECK(row.add(Change::updated, {}, MadeValues{"7", "d", "x"}).change.before[1].kind ==
          Kind::unknown);
}

TEST_CASE("A snapshot tells what the row was before its first change") {
    Versions row;
    row.versions.begin_with(row.relation, {text_value("7"), text_value("a"), text_value("long")});
    const RowVersion version =
        row.add(Change::deleted, MadeValues{"7", std::nullopt, std::nullopt}, {});
    CHECK(version.change.before == Row{text_value("7"), text_value("a"), text_value("long")});
}

TEST_CASE("A row that comes from another key and goes to another one") {
    Versions row;
    RowVersion version = row.add(Change::updated, MadeValues{"5", std::nullopt, std::nullopt},
                                 MadeValues{"7", "a", kUnchanged});
    CHECK(version.came);
    CHECK(version.change.before[1].kind == Kind::unknown);
    version = row.add(Change::updated, MadeValues{"7", std::nullopt, std::nullopt},
                      MadeValues{"8", "b", kUnchanged});
    CHECK(version.went);
    CHECK(version.change.before[1] == text_value("a"));
    // The next row of that key is another one.
    version = row.add(Change::inserted, {}, MadeValues{"7", "new", "n"});
    CHECK(version.change.before.empty());
}

TEST_CASE("A truncation ends the row, and tells nothing where there was none") {
    Versions row;
    row.add(Change::inserted, {}, MadeValues{"7", "a", "b"});
    CHECK(row.add(Change::truncated, {}, {}).change.before[1] == text_value("a"));
    storage::JournalChange again;
    again.kind = Change::truncated;
    again.truncated = {&row.relation};
    auto version = row.versions.add({}, again);
    REQUIRE(version);
    CHECK_FALSE(*version);
}

TEST_CASE("A column that was added is unknown in the versions before it") {
    Versions row;
    row.add(Change::inserted, {}, MadeValues{"7", "a", "b"});
    row.relation = made_relation(1, "t", 4);
    const RowVersion version = row.add(Change::updated, {}, MadeValues{"7", "a", "b", "c"});
    CHECK(version.change.before[3].kind == Kind::unknown);
    CHECK(version.change.before[2] == text_value("b"));
}

TEST_CASE("The same values of a key of other columns are another row, and none before it counts") {
    Versions row;
    row.add(Change::inserted, {}, MadeValues{"7", "a", "b"});
    CHECK_FALSE(row.versions.other_key());
    pb::JournalRelation other = row.relation;
    for (int i = 0; i < 2; ++i) {
        other.mutable_columns(i)->set_is_primary_key(i == 1);
        other.mutable_columns(i)->set_is_identity(i == 1);
    }
    const ByteBuffer tuple = made_tuple({"3", "7", "x"});
    storage::JournalChange change;
    change.kind = Change::inserted;
    change.relation = &other;
    change.new_tuple = tuple;
    auto version = row.versions.add({Lsn{1000}, Lsn{1008}, WallTime(Micros(1)), 9}, change);
    REQUIRE(version);
    CHECK_FALSE(*version);
    REQUIRE(row.versions.other_key());
    CHECK(row.versions.other_key()->until == Lsn{1008});
    CHECK(row.versions.row() == nullptr);
    CHECK(row.add(Change::updated, {}, MadeValues{"7", "c", "d"}).change.before[1].kind ==
          Kind::unknown);
    // Nor does what a snapshot tells by that key.
    RowVersions fresh(NamedKey{{"id"}, {"7"}});
    fresh.begin_with(other, {text_value("3"), text_value("7"), text_value("x")});
    CHECK(fresh.row() == nullptr);
}

}  // namespace
}  // namespace walvault::agent
