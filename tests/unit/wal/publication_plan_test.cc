#include "wal/publication_plan.h"

#include <doctest/doctest.h>

#include <map>

namespace walvault::wal {
namespace {

using Kind = CatalogTable::Kind;
using Persistence = CatalogTable::Persistence;
using Oids = std::vector<std::uint32_t>;

CatalogTable table(std::uint32_t oid, const std::string& name, bool primary_key = true) {
    CatalogTable table;
    table.oid = oid;
    table.schema = "public";
    table.name = name;
    table.primary_key = primary_key;
    return table;
}
CatalogTable partitioned(std::uint32_t oid, const std::string& name, bool primary_key = true) {
    CatalogTable root = table(oid, name, primary_key);
    root.kind = Kind::partitioned;
    return root;
}
CatalogTable partition(std::uint32_t oid, const std::string& name, std::uint32_t root,
                       bool primary_key = true) {
    CatalogTable leaf = table(oid, name, primary_key);
    leaf.root = root;
    return leaf;
}

// Publications as an earlier plan left them.
PublicationState made(Oids members) {
    PublicationState state;
    state.exists = true;
    state.as_made_here = true;
    state.members = std::move(members);
    return state;
}

PublicationRequest request(std::vector<CatalogTable> tables, PublicationState all = {},
                           PublicationState inserts = {}) {
    PublicationRequest request;
    request.server_major = 15;
    request.name = "j";
    request.role = "keeper";
    request.tables = std::move(tables);
    request.all_changes = std::move(all);
    request.inserts = std::move(inserts);
    return request;
}

PublicationPlan plan_of(const PublicationRequest& request,
                        const std::vector<std::string>& patterns = {"public.*"}) {
    auto parsed = TablePatterns::parse(patterns);
    REQUIRE(parsed);
    auto plan = plan_publication(request, *parsed);
    if (!plan) FAIL(plan.error().message);
    return *plan;
}

std::map<std::string, Journaled> journaled(const PublicationPlan& plan) {
    std::map<std::string, Journaled> found;
    for (const TableVerdict& verdict : plan.verdicts)
        found[verdict.table] = verdict.journaled;
    return found;
}

TEST_CASE("a first plan makes both publications, then names the tables") {
    const PublicationPlan plan = plan_of(request({table(2, "b", false), table(1, "a")}));
    REQUIRE(plan.statements.size() == 4);
    CHECK(plan.statements[0] ==
          "CREATE PUBLICATION \"j\" WITH (publish = 'insert, update, delete, truncate', "
          "publish_via_partition_root = false)");
    CHECK(plan.statements[1] ==
          "CREATE PUBLICATION \"j_inserts\" WITH (publish = 'insert, truncate', "
          "publish_via_partition_root = false)");
    CHECK(plan.statements[2] == "ALTER PUBLICATION \"j\" ADD TABLE ONLY \"public\".\"a\"");
    CHECK(plan.statements[3] == "ALTER PUBLICATION \"j_inserts\" ADD TABLE ONLY \"public\".\"b\"");
    CHECK(plan.all_changes == Oids{1});
    CHECK(plan.inserts == Oids{2});
    CHECK(plan.in_danger.empty());
    REQUIRE(plan.verdicts.size() == 2);
    CHECK(plan.verdicts[0].table == "\"public\".\"a\"");
}

TEST_CASE("generated columns are published from 18 on, in both alike") {
    PublicationRequest wanted = request({table(1, "a")});
    wanted.server_major = 18;
    const PublicationPlan plan = plan_of(wanted);
    for (int i : {0, 1})
        CHECK(plan.statements[i].find(", publish_generated_columns = stored)") !=
              std::string::npos);
}

TEST_CASE("what is as planned needs no statement") {
    CHECK(plan_of(request({table(1, "a"), table(2, "b", false)}, made({1}), made({2})))
              .statements.empty());
}

TEST_CASE("a table that lost its identity is in danger, and is taken out before anything else") {
    const PublicationPlan plan =
        plan_of(request({table(1, "a", false), table(2, "b")}, made({1}), made({2})));
    CHECK(plan.in_danger == std::vector<std::string>{"\"public\".\"a\""});
    REQUIRE(plan.statements.size() == 4);
    CHECK(plan.statements[0] == "ALTER PUBLICATION \"j\" DROP TABLE ONLY \"public\".\"a\"");
    CHECK(plan.statements[1] == "ALTER PUBLICATION \"j_inserts\" DROP TABLE ONLY \"public\".\"b\"");
    CHECK(plan.statements[2] == "ALTER PUBLICATION \"j\" ADD TABLE ONLY \"public\".\"b\"");
    CHECK(plan.statements[3] == "ALTER PUBLICATION \"j_inserts\" ADD TABLE ONLY \"public\".\"a\"");
}

TEST_CASE("a member that is not selected any more leaves, one that is gone needs no statement") {
    const PublicationPlan plan =
        plan_of(request({table(1, "a"), table(2, "b")}, made({1, 2, 77}), made({})), {"public.a"});
    REQUIRE(plan.statements.size() == 1);
    CHECK(plan.statements[0] == "ALTER PUBLICATION \"j\" DROP TABLE ONLY \"public\".\"b\"");
}

TEST_CASE("a publication that was altered is set right, one of all tables refused") {
    PublicationState altered = made({});
    altered.as_made_here = false;
    const PublicationPlan plan = plan_of(request({}, made({}), altered));
    REQUIRE(plan.statements.size() == 1);
    CHECK(plan.statements[0].starts_with(
        "ALTER PUBLICATION \"j_inserts\" SET (publish = 'insert, truncate'"));
    altered.names_tables = false;
    auto patterns = TablePatterns::parse({"public.*"});
    auto refused = plan_publication(request({}, made({}), altered), *patterns);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::refused);
    CHECK(refused.error().message.find("\"j_inserts\"") != std::string::npos);
}

TEST_CASE("each identity is judged as PostgreSQL does, and mended by what the table has") {
    struct Case {
        char identity;
        bool primary_key, identity_index, virtual_columns;
        const char* candidate;
        bool has_identity;
        const char* mend;
    };
    for (const Case& c :
         {Case{'d', true, false, false, "", true, ""},
          {'d', true, false, true, "", true, ""},
          {'d', false, false, false, "", false, "REPLICA IDENTITY FULL"},
          {'d', false, false, false, "u", false, "REPLICA IDENTITY USING INDEX \"u\""},
          {'d', false, false, true, "", false, "ADD PRIMARY KEY (COLUMNS)"},
          {'n', true, false, false, "u", false, "REPLICA IDENTITY DEFAULT"},
          {'n', false, false, false, "", false, "REPLICA IDENTITY FULL"},
          {'f', false, false, false, "", true, ""},
          {'f', true, false, true, "", false, "REPLICA IDENTITY DEFAULT"},
          {'i', false, true, false, "", true, ""},
          {'i', true, false, false, "", false, "REPLICA IDENTITY DEFAULT"}}) {
        CatalogTable one = table(1, "a", c.primary_key);
        one.identity = c.identity;
        one.identity_index = c.identity_index;
        one.virtual_columns = c.virtual_columns;
        one.candidate_index = c.candidate;
        CAPTURE(c.identity);
        CHECK(has_replica_identity(one) == c.has_identity);
        const PublicationPlan plan = plan_of(request({one}));
        const TableVerdict& verdict = plan.verdicts.at(0);
        CHECK(verdict.reason.empty() == c.has_identity);
        CHECK(verdict.mend ==
              (c.has_identity ? "" : std::string("ALTER TABLE \"public\".\"a\" ") + c.mend));
    }
}

TEST_CASE("what holds no rows in WAL, or is not the role's, is left out with a reason") {
    CatalogTable view = table(1, "view");
    view.kind = Kind::view;
    CatalogTable refreshed = table(2, "refreshed");
    refreshed.kind = Kind::materialized_view;
    CatalogTable foreign = table(3, "foreign");
    foreign.kind = Kind::foreign;
    CatalogTable unlogged = table(4, "unlogged");
    unlogged.persistence = Persistence::unlogged;
    CatalogTable temporary = table(5, "temporary");
    temporary.persistence = Persistence::temporary;
    CatalogTable theirs = table(6, "theirs");
    theirs.owned = false;
    theirs.owner = "the \"owner\"";
    const PublicationPlan plan =
        plan_of(request({view, refreshed, foreign, unlogged, temporary, theirs}));
    CHECK(plan.all_changes.empty());
    CHECK(plan.inserts.empty());
    REQUIRE(plan.verdicts.size() == 6);
    std::map<std::string, std::string> mends;
    for (const TableVerdict& verdict : plan.verdicts) {
        CHECK(verdict.journaled == Journaled::left_out);
        CHECK_FALSE(verdict.reason.empty());
        if (!verdict.mend.empty()) mends[verdict.table] = verdict.mend;
    }
    CHECK(mends ==
          std::map<std::string, std::string>{
              {"\"public\".\"theirs\"", "GRANT \"the \"\"owner\"\"\" TO \"keeper\""},
              {"\"public\".\"unlogged\"", "ALTER TABLE \"public\".\"unlogged\" SET LOGGED"}});
}

TEST_CASE(
    "a tree with a primary key is published by its root alone, whatever the patterns say of "
    "partitions") {
    const PublicationPlan plan = plan_of(
        request({partitioned(1, "r"), partition(2, "r1", 1), partition(3, "r2", 1)}), {"public.r"});
    CHECK(plan.all_changes == Oids{1});
    CHECK(plan.inserts.empty());
    CHECK(plan.verdicts.size() == 3);
    CHECK(plan.verdicts[0].partitioned);
    CHECK(plan.verdicts[1].root == 1);
    CHECK(plan.verdicts[1].journaled == Journaled::all_changes);
}

TEST_CASE(
    "a tree whose new partitions would have no identity goes to inserts, its partitions by their "
    "own") {
    const PublicationPlan plan = plan_of(
        request({partitioned(1, "r", false), partition(2, "r1", 1), partition(3, "r2", 1, false)}));
    CHECK(plan.all_changes == Oids{2});
    CHECK(plan.inserts == Oids{1});
    CHECK(journaled(plan) ==
          std::map<std::string, Journaled>{{"\"public\".\"r\"", Journaled::inserts_only},
                                           {"\"public\".\"r1\"", Journaled::all_changes},
                                           {"\"public\".\"r2\"", Journaled::inserts_only}});
    // A key of the root does not help a partition that has set its identity off.
    CatalogTable off = partition(3, "r2", 1);
    off.identity = 'n';
    const PublicationPlan weak =
        plan_of(request({partitioned(1, "r"), partition(2, "r1", 1), off}, made({1}), made({})));
    CHECK(weak.inserts == Oids{1});
    CHECK(weak.all_changes == Oids{2});
    CHECK(weak.in_danger == std::vector<std::string>{"\"public\".\"r2\""});
    CHECK(weak.verdicts[0].reason ==
          "of its partition \"public\".\"r2\": its replica identity is NOTHING");
}

TEST_CASE("a partition that is left out takes its root out, and the others are named one by one") {
    const PublicationPlan plan =
        plan_of(request({partitioned(1, "r"), partition(2, "r1", 1), partition(3, "r2", 1)}),
                {"public.*", "!public.r2"});
    CHECK(plan.all_changes == Oids{2});
    CHECK(journaled(plan) ==
          std::map<std::string, Journaled>{{"\"public\".\"r\"", Journaled::left_out},
                                           {"\"public\".\"r1\"", Journaled::all_changes},
                                           {"\"public\".\"r2\"", Journaled::left_out}});
    // Without its root a partition can be named.
    const PublicationPlan single =
        plan_of(request({partitioned(1, "r"), partition(2, "r1", 1), partition(3, "r2", 1)}),
                {"public.r1"});
    CHECK(single.all_changes == Oids{2});
    CHECK(single.verdicts.size() == 1);
}

}  // namespace
}  // namespace walvault::wal
