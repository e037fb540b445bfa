#include "agent/table_state.h"

#include <doctest/doctest.h>

#include "tests/support/journal_fixture.h"
#include "tests/support/scratch_directory.h"

namespace walvault::agent {
namespace {

using Change = JournalRecordKind;
using Kind = RowValue::Kind;

struct Stage {
    ScratchDirectory directory;
    std::unique_ptr<storage::ScratchRows> scratch =
        std::move(*storage::ScratchRows::open(directory.path()));
    TableState state{*scratch, 1};
    pb::JournalRelation relation = made_relation(1, "t", 3);

    Result<RowChange> apply(Change kind, const std::optional<MadeValues>& before,
                            const std::optional<MadeValues>& now, char old_kind = 'K') {
        ByteBuffer old_tuple = before ? made_tuple(*before) : ByteBuffer{};
        ByteBuffer new_tuple = now ? made_tuple(*now) : ByteBuffer{};
        storage::JournalChange change;
        change.kind = kind;
        change.relation = &relation;
        change.old_kind = before ? old_kind : '\0';
        change.old_tuple = old_tuple;
        change.new_tuple = new_tuple;
        return state.apply_resolved(change);
    }
    void load(const MadeValues& values) { REQUIRE(state.load(relation, made_tuple(values))); }
    std::vector<Row> rows() {
        std::vector<Row> rows;
        REQUIRE(state.each([&](const Row& row) {
            rows.push_back(row);
            return Result<bool>(true);
        }));
        return rows;
    }
};
Row texts(const std::vector<std::string>& values) {
    Row row;
    for (const auto& value : values)
        row.push_back(text_value(value));
    return row;
}

TEST_CASE("Rows of a snapshot and what changed after it, in the order of the key") {
    Stage stage;
    stage.load({"10", "a", "x"});
    stage.load({"9", "b", "y"});
    stage.load({"-1", "c", "z"});
    REQUIRE(stage.apply(Change::inserted, {}, MadeValues{"2", "d", "w"}));
    REQUIRE(stage.apply(Change::deleted, MadeValues{"9", std::nullopt, std::nullopt}, {}));
    // The unchanged value is looked up in the row before.
    auto changed = stage.apply(Change::updated, {}, MadeValues{"10", "A", kUnchanged});
    REQUIRE(changed);
    CHECK(changed->before == texts({"10", "a", "x"}));
    // A changed key takes the row along.
    REQUIRE(stage.apply(Change::updated, MadeValues{"-1", std::nullopt, std::nullopt},
                        MadeValues{"11", "c", kUnchanged}));
    CHECK(stage.rows() == std::vector<Row>{texts({"2", "d", "w"}), texts({"10", "A", "x"}),
                                           texts({"11", "c", "z"})});
    storage::JournalChange truncate;
    truncate.kind = Change::truncated;
    truncate.truncated = {&stage.relation};
    REQUIRE(stage.state.apply(truncate));
    CHECK(stage.rows().empty());
}

TEST_CASE("Rows of a table without a key are counted") {
    Stage stage;
    stage.relation.set_identity(pb::JournalRelation::FULL);
    stage.relation.mutable_columns(0)->set_is_primary_key(false);
    stage.load({"1", "a", "x"});
    stage.load({"1", "a", "x"});
    stage.load({"1", "b", "x"});
    REQUIRE(stage.apply(Change::inserted, {}, MadeValues{"1", "a", "x"}));
    CHECK(stage.rows().size() == 4);
    REQUIRE(stage.apply(Change::deleted, MadeValues{"1", "a", "x"}, {}, 'O'));
    REQUIRE(stage.apply(Change::updated, MadeValues{"1", "a", "x"},
                        MadeValues{"1", "c", kUnchanged}, 'O'));
    CHECK(stage.rows() ==
          std::vector<Row>{texts({"1", "a", "x"}), texts({"1", "b", "x"}), texts({"1", "c", "x"})});
}

TEST_CASE("A column that was added is unknown in rows before it; one that was dropped is gone") {
    Stage stage;
    stage.load({"1", "a", "x"});
    stage.relation = made_relation(1, "t", 2);
    stage.relation.add_columns()->set_name("new");
    REQUIRE(stage.apply(Change::inserted, {}, MadeValues{"2", "b", "n"}));
    const auto rows = stage.rows();
    REQUIRE(rows.size() == 2);
    CHECK(rows[0][1] == text_value("a"));
    CHECK(rows[0][2].kind == Kind::unknown);
    CHECK(rows[1] == texts({"2", "b", "n"}));
}

TEST_CASE("Rows are found by a new key, and not lost by a new name of the old one") {
    Stage stage;
    stage.load({"1", "b", "x"});
    stage.load({"2", "a", "y"});
    stage.relation.mutable_columns(0)->set_name("number");
    REQUIRE(stage.apply(Change::updated, {}, MadeValues{"2", "a", "Y"}));
    CHECK(stage.rows().size() == 2);
    // The key is "note" from here on.
    stage.relation = made_relation(1, "t", 3);
    for (int i = 0; i < 2; ++i) {
        stage.relation.mutable_columns(i)->set_is_primary_key(i == 1);
        stage.relation.mutable_columns(i)->set_is_identity(i == 1);
    }
    REQUIRE(stage.apply(Change::deleted, MadeValues{std::nullopt, "b", std::nullopt}, {}));
    const auto rows = stage.rows();
    REQUIRE(rows.size() == 1);
    CHECK(rows[0][1] == text_value("a"));
    // A key of a column that the rows do not have.
    stage.relation = made_relation(1, "t", 3);
    stage.relation.mutable_columns(0)->set_is_primary_key(false);
    stage.relation.mutable_columns(2)->set_is_primary_key(true);
    stage.relation.mutable_columns(2)->set_name("new");
    auto done = stage.apply(Change::inserted, {}, MadeValues{"3", "c", "z"});
    REQUIRE_FALSE(done);
    CHECK(done.error().code == Errc::unsupported);
}

TEST_CASE("A key at the end of the row under another name may be another column") {
    const auto rename = [](int key) {
        Stage stage;
        for (int i = 0; i < 3; ++i) {
            stage.relation.mutable_columns(i)->set_is_primary_key(i == key);
            stage.relation.mutable_columns(i)->set_is_identity(i == key);
            stage.relation.mutable_columns(i)->set_type_oid(25);
        }
        stage.load({"1", "2", "3"});
        stage.relation.mutable_columns(key)->set_name("renamed");
        return stage.apply(Change::inserted, {}, MadeValues{"4", "5", "6"}).has_value();
    };
    CHECK(rename(0));
    CHECK(rename(1));
    CHECK_FALSE(rename(2));  // dropped, and another one added?
}

TEST_CASE("A key that was wanted does not mean the same values of other columns") {
    Stage stage;
    stage.relation.mutable_columns(1)->set_type_oid(23);
    REQUIRE(stage.state.want(stage.relation, texts({"7", "", ""})));
    pb::JournalRelation other = stage.relation;
    for (int i = 0; i < 2; ++i) {
        other.mutable_columns(i)->set_is_primary_key(i == 1);
        other.mutable_columns(i)->set_is_identity(i == 1);
    }
    CHECK(*stage.state.is_wanted(stage.relation, texts({"7", "1", ""})));
    CHECK_FALSE(*stage.state.is_wanted(other, texts({"1", "7", ""})));
}

TEST_CASE("Only rows that were wanted are kept") {
    Stage stage;
    REQUIRE(stage.state.want(stage.relation, texts({"2", "", ""})));
    stage.state.keep_only_wanted();
    stage.load({"1", "a", "x"});
    stage.load({"2", "b", "y"});
    REQUIRE(stage.apply(Change::inserted, {}, MadeValues{"3", "c", "z"}));
    CHECK(stage.rows() == std::vector<Row>{texts({"2", "b", "y"})});
    CHECK(*stage.state.is_wanted(stage.relation, texts({"2", "other", ""})));
    CHECK_FALSE(*stage.state.is_wanted(stage.relation, texts({"3", "", ""})));
    CHECK_FALSE(*stage.state.is_wanted(stage.relation, {}));
}

TEST_CASE("Two tables share the scratch rows and do not meet") {
    Stage stage;
    TableState other(*stage.scratch, 2);
    stage.load({"1", "a", "x"});
    REQUIRE(other.load(stage.relation, made_tuple({"1", "b", "y"})));
    CHECK(stage.rows() == std::vector<Row>{texts({"1", "a", "x"})});
}

}  // namespace
}  // namespace walvault::agent
