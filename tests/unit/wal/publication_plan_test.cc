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

// All that a plan executes, in its order.
std::vector<std::string> statements(const PublicationPlan& plan) {
    std::vector<std::string> all = plan.first;
    for (const std::string& statement : statements_of("j", plan.leaving))
        all.push_back(statement);
    all.insert(all.end(), plan.options.begin(), plan.options.end());
    for (const std::string& statement : statements_of("j", plan.joining))
        all.push_back(statement);
    return all;
}

std::map<std::string, Journaled> journaled(const PublicationPlan& plan) {
    std::map<std::string, Journaled> found;
    for (const TableVerdict& verdict : plan.verdicts)
        found[verdict.table] = verdict.journaled;
    return found;
}

TEST_CASE("a first plan makes both publications, then names the tables") {
    const PublicationPlan plan = plan_of(request({table(2, "b", false), table(1, "a")}));
    const std::vector<std::string> done = statements(plan);
    REQUIRE(done.size() == 4);
    CHECK(done[0] ==
          "CREATE PUBLICATION \"j\" WITH (publish = 'insert, update, delete, truncate', "
          "publish_via_partition_root = false)");
    CHECK(done[1] ==
          "CREATE PUBLICATION \"j_inserts\" WITH (publish = 'insert, truncate', "
          "publish_via_partition_root = false)");
    CHECK(done[2] == "ALTER PUBLICATION \"j\" ADD TABLE ONLY \"public\".\"a\"");
    CHECK(done[3] == "ALTER PUBLICATION \"j_inserts\" ADD TABLE ONLY \"public\".\"b\"");
    CHECK(plan.all_changes == Oids{1});
    CHECK(plan.inserts == Oids{2});
    CHECK(plan.in_danger.empty());
    REQUIRE(plan.verdicts.size() == 2);
    CHECK(plan.verdicts[0].table == "\"public\".\"a\"");
    CHECK(plan.verdicts[0].schema == "public");
    CHECK(plan.verdicts[0].name == "a");
}

TEST_CASE("generated columns are published from 18 on, in both alike") {
    PublicationRequest wanted = request({table(1, "a")});
    wanted.server_major = 18;
    const std::vector<std::string> done = statements(plan_of(wanted));
    REQUIRE(done.size() == 3);
    for (std::size_t i : {0, 1})
        CHECK(done[i].find(", publish_generated_columns = stored)") != std::string::npos);
}

TEST_CASE("what is as planned needs no statement") {
    CHECK(statements(plan_of(request({table(1, "a"), table(2, "b", false)}, made({1}), made({2}))))
              .empty());
}

TEST_CASE("a table that lost its identity is in danger, and is taken out before anything else") {
    const PublicationPlan plan =
        plan_of(request({table(1, "a", false), table(2, "b")}, made({1}), made({2})));
    CHECK(plan.in_danger == std::vector<std::string>{"\"public\".\"a\""});
    const std::vector<std::string> done = statements(plan);
    REQUIRE(done.size() == 4);
    CHECK(done[0] == "ALTER PUBLICATION \"j\" DROP TABLE ONLY \"public\".\"a\"");
    CHECK(done[1] == "ALTER PUBLICATION \"j_inserts\" DROP TABLE ONLY \"public\".\"b\"");
    CHECK(done[2] == "ALTER PUBLICATION \"j\" ADD TABLE ONLY \"public\".\"b\"");
    CHECK(done[3] == "ALTER PUBLICATION \"j_inserts\" ADD TABLE ONLY \"public\".\"a\"");
}

TEST_CASE("a member that is not selected any more leaves, one that is gone needs no statement") {
    const PublicationPlan plan =
        plan_of(request({table(1, "a"), table(2, "b")}, made({1, 2, 77}), made({})), {"public.a"});
    const std::vector<std::string> done = statements(plan);
    REQUIRE(done.size() == 1);
    CHECK(done[0] == "ALTER PUBLICATION \"j\" DROP TABLE ONLY \"public\".\"b\"");
}

TEST_CASE("a publication that was altered is set right, one of all tables refused") {
    PublicationState altered = made({});
    altered.as_made_here = false;
    const std::vector<std::string> narrowed_first = plan_of(request({}, made({}), altered)).first;
    const std::vector<std::string> options = plan_of(request({}, altered, altered)).options;
    CHECK(narrowed_first ==
          std::vector<std::string>{
              "ALTER PUBLICATION \"j_inserts\" SET (publish = 'insert, truncate')"});
    REQUIRE(options.size() == 2);
    CHECK(options[0].starts_with(
        "ALTER PUBLICATION \"j\" SET (publish = 'insert, update, delete, truncate', publish_via"));
    CHECK(options[1].starts_with(
        "ALTER PUBLICATION \"j_inserts\" SET (publish = 'insert, truncate', publish_via"));
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

TEST_CASE("what is in danger leaves before all others, its root with it") {
    CatalogTable off = partition(9, "r2", 8);
    off.identity = 'n';
    const PublicationPlan plan =
        plan_of(request({table(1, "a"), table(2, "b", false), partitioned(8, "r"), off},
                        made({1, 2, 8}), made({})),
                {"public.*", "!public.a"});
    REQUIRE(plan.leaving.size() == 3);
    CHECK(plan.leaving[0].oid == 2);
    CHECK(plan.leaving[0].in_danger);
    CHECK(plan.leaving[0].joins_inserts);
    CHECK(plan.leaving[1].oid == 8);
    CHECK(plan.leaving[1].in_danger);
    CHECK(plan.leaving[2].oid == 1);
    CHECK_FALSE(plan.leaving[2].in_danger);
    CHECK(plan.joining.empty());
}

TEST_CASE("a member with a row filter or a list of columns leaves and joins anew") {
    PublicationState all = made({1, 2});
    all.narrowed = {2};
    PublicationState inserts = made({3});
    inserts.narrowed = {3};
    const PublicationRequest before =
        request({table(1, "a"), table(2, "b"), table(3, "c", false)}, all, inserts);
    const PublicationPlan plan = plan_of(before);
    CHECK(statements(plan) ==
          std::vector<std::string>{
              "ALTER PUBLICATION \"j\" DROP TABLE ONLY \"public\".\"b\"",
              "ALTER PUBLICATION \"j_inserts\" DROP TABLE ONLY \"public\".\"c\"",
              "ALTER PUBLICATION \"j\" ADD TABLE ONLY \"public\".\"b\"",
              "ALTER PUBLICATION \"j_inserts\" ADD TABLE ONLY \"public\".\"c\""});
    PublicationRequest after = before;
    after.all_changes.narrowed.clear();
    const MembershipDifference whole = compare_members(before, after);
    CHECK(whole.joined == Oids{2});
    CHECK(whole.left == Oids{2});
    const MembershipDifference still = compare_members(before, before);
    CHECK(still.joined.empty());
    CHECK(still.left.empty());
    after.all_changes.members = {1};
    const MembershipDifference gone = compare_members(before, after);
    CHECK(gone.joined.empty());
    CHECK(gone.left == Oids{2});
}

TEST_CASE("what joined and left is told of tables with rows, whichever name publishes them") {
    const std::vector<CatalogTable> tables{partitioned(1, "r"), partition(2, "r1", 1),
                                           partition(3, "r2", 1), table(4, "a"), table(5, "b")};
    const PublicationRequest by_partitions = request(tables, made({2, 4}));
    PublicationRequest by_root = request(tables, made({1, 5}));
    MembershipDifference found = compare_members(by_partitions, by_root);
    CHECK(found.joined == Oids{3, 5});
    CHECK(found.left == Oids{4});
    found = compare_members(by_root, by_partitions);
    CHECK(found.joined == Oids{4});
    CHECK(found.left == Oids{3, 5});
    // One that is gone has not left, one that is new in a tree has not joined.
    PublicationRequest later = by_root;
    later.tables = {partitioned(1, "r"), partition(2, "r1", 1), partition(9, "r9", 1)};
    found = compare_members(by_root, later);
    CHECK(found.joined.empty());
    CHECK(found.left.empty());
}

TEST_CASE("verdicts are of what is published, not of what is to be") {
    PublicationState all = made({4, 7});
    all.narrowed = {7};
    const PublicationRequest now =
        request({partitioned(1, "r"), partition(2, "r1", 1), table(3, "a"), table(4, "b"),
                 table(5, "c", false), table(6, "d"), table(7, "e")},
                all, made({3}));
    PublicationPlan plan = plan_of(now);
    judge_as_published(now, {1, 3, 5, 7}, plan);
    std::map<std::string, std::string> reasons;
    for (const TableVerdict& verdict : plan.verdicts)
        if (!verdict.reason.empty()) reasons[verdict.name] = verdict.reason;
    const std::string locked = "it is locked by another session; it joins when the lock is gone";
    CHECK(reasons == std::map<std::string, std::string>{
                         {"r", locked},
                         {"r1", locked},
                         {"a", locked},
                         {"c", locked},
                         {"d", "it came or was altered meanwhile: it joins the next time"},
                         {"e", locked}});
    const std::map<std::string, Journaled> found = journaled(plan);
    CHECK(found.at("\"public\".\"r1\"") == Journaled::left_out);
    // It is in the other publication as yet.
    CHECK(found.at("\"public\".\"a\"") == Journaled::inserts_only);
    CHECK(found.at("\"public\".\"b\"") == Journaled::all_changes);
    CHECK(found.at("\"public\".\"c\"") == Journaled::left_out);
    CHECK(found.at("\"public\".\"e\"") == Journaled::left_out);
    CHECK(plan.all_changes == Oids{4, 7});
    CHECK(plan.inserts == Oids{3});
}

}  // namespace
}  // namespace walvault::wal
