// Each question of the row journal, asked of a repository as the agent leaves it: WAL, a base
// backup, and a journal with a snapshot, closed packs and an open tail.
#include "tests/unit/agent/journaled.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

// What happened in the tests below: a snapshot, a pack, and an open tail.
struct Shop : Journaled {
    Written inserted, updated, deleted, later;
    Shop() {
        snapshot(orders, {{"1", "one", "long one"}, {"2", "two", "long two"}, {"10", "ten", "x"}});
        inserted = write({insert({"3", "three", "long three"})});
        updated = write({update({"1", "ONE", kUnchanged}), update({"3", "THREE", kUnchanged})});
        close_tail();
        deleted = write({remove("1"), remove("2"), remove("3")});
        later =
            write({insert({"2", "two again", "new"}), update({"10", std::nullopt, kUnchanged})});
        quiet();
    }
};

TEST_CASE("log names the transactions that changed a table, and how many rows") {
    Shop shop;
    LogArguments arguments;
    arguments.since = "earliest";
    arguments.table = "orders";
    Json json = shop.json(verb_log, arguments);
    REQUIRE(json["transactions"].size() == 4);
    CHECK(json["transactions"][2]["xid"] == shop.deleted.commit.xid);
    CHECK(json["transactions"][2]["deleted_rows"] == 3);
    CHECK(json["transactions"][2]["restore"].get<std::string>().find("walvault restore --before " +
                                                                     xid_of(shop.deleted)) == 0);
    CHECK(json["more"] == false);
    arguments.kinds = {"delete"};
    arguments.min_rows = 2;
    CHECK(shop.json(verb_log, arguments)["transactions"].size() == 1);
    arguments.min_rows = 4;
    CHECK(shop.json(verb_log, arguments)["transactions"].empty());
    arguments.kinds = {};
    arguments.min_rows = 0;
    arguments.limit = 1;
    json = shop.json(verb_log, arguments);
    REQUIRE(json["transactions"].size() == 1);
    CHECK(json["transactions"][0]["xid"] == shop.later.commit.xid);
    CHECK(json["more"] == true);
    const auto [code, text] = shop.ask(verb_log, arguments, Output::text);
    CHECK(code == 0);
    CHECK(text.find("public.orders") != std::string::npos);
    CHECK(text.find("There are earlier ones") != std::string::npos);
}

TEST_CASE("history looks what was not sent up in the versions before, and in the snapshot") {
    Shop shop;
    Json json = shop.json(verb_history, RowHistoryArguments{.table = "orders", .key = "id=1"});
    REQUIRE(json["versions"].size() == 2);
    CHECK(json["versions"][0]["old"]["note"] == "one");
    CHECK(json["versions"][0]["new"]["note2"] == "long one");
    CHECK(json["versions"][0]["changed"] == Json{"note"});
    CHECK(json["versions"][1]["kind"] == "delete");
    CHECK(json["versions"][1]["old"]["note"] == "ONE");
    CHECK(json["versions"][1]["old"]["note2"] == "long one");
    json = shop.json(verb_history, RowHistoryArguments{.table = "orders", .key = "id=3"});
    CHECK(json["versions"].size() == 3);
    CHECK(json["versions"][0]["old"].is_null());
    // What is asked for is shown; what lies before it still tells.
    json = shop.json(
        verb_history,
        RowHistoryArguments{.table = "orders", .key = "id=3", .since = xid_of(shop.deleted)});
    REQUIRE(json["versions"].size() == 1);
    CHECK(json["versions"][0]["old"]["note2"] == "long three");
    // By a value that is no key.
    json = shop.json(verb_history, RowHistoryArguments{.table = "orders", .key = "note=THREE"});
    CHECK(json["versions"].size() == 1);
    CHECK(json["notes"].size() == 1);
    const auto [code, text] =
        shop.ask(verb_history, RowHistoryArguments{.table = "orders", .key = "id=1"}, Output::text);
    CHECK(text.find("note: 'one' -> 'ONE'") != std::string::npos);
    CHECK(shop.ask(verb_history, RowHistoryArguments{.table = "ordres", .key = "id=1"}).first != 0);
    CHECK(shop.ask(verb_history, RowHistoryArguments{.table = "orders", .key = "idd=1"}).first !=
          0);
}

TEST_CASE("changes and show print what was done, oldest first") {
    Shop shop;
    ChangesArguments arguments{.table = "orders", .since = "earliest"};
    Json json = shop.json(verb_changes, arguments);
    REQUIRE(json["changes"].size() == 8);
    CHECK(json["changes"][0]["kind"] == "insert");
    CHECK(json["changes"][7]["new"]["note"].is_null());
    CHECK(json["changes"][7]["new_unchanged"] == Json{"note2"});
    arguments.limit = 2;
    json = shop.json(verb_changes, arguments);
    CHECK(json["changes"].size() == 2);
    CHECK(json["changes"][1]["key"]["id"] == "10");
    CHECK(json["more"] == true);
    arguments = {.table = "orders", .since = xid_of(shop.updated), .until = xid_of(shop.deleted)};
    CHECK(shop.json(verb_changes, arguments)["changes"].size() == 5);
    const auto [code, csv] = shop.ask(verb_changes, arguments, Output::csv);
    CHECK(csv.rfind("at,xid,commit_lsn,end_lsn,table,kind,key,old,new\n", 0) == 0);
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 6);

    json = shop.json(verb_show, ShowArguments{.transaction = xid_of(shop.deleted)});
    CHECK(json["changes"].size() == 3);
    CHECK(json["xid"] == shop.deleted.commit.xid);
    CHECK(shop.ask(verb_show, ShowArguments{.transaction = "xid:1"}).first == kExitTarget);
    const auto [done, text] =
        shop.ask(verb_show, ShowArguments{.transaction = xid_of(shop.deleted)}, Output::text);
    CHECK(text.find("3 deleted\n") != std::string::npos);
    CHECK(text.find("walvault undo " + xid_of(shop.deleted)) != std::string::npos);
}

TEST_CASE("rows are those of the moment, in the order of the key") {
    Shop shop;
    auto ids = [&](RowsArguments arguments) {
        arguments.table = "orders";
        std::string found;
        const Json json = shop.json(verb_rows, arguments);
        for (const auto& row : json["rows"])
            found += row["values"]["id"].get<std::string>() + " ";
        return found;
    };
    CHECK(ids({.before = xid_of(shop.inserted)}) == "1 2 10 ");
    CHECK(ids({.at = xid_of(shop.updated)}) == "1 2 3 10 ");
    CHECK(ids({.at = xid_of(shop.deleted)}) == "10 ");
    CHECK(ids({.at = "latest"}) == "2 10 ");
    CHECK(ids({.at = xid_of(shop.updated), .where = {"note=THREE"}}) == "3 ");
    CHECK(ids({.at = xid_of(shop.updated), .limit = 2}) == "1 2 ");
    Json json = shop.json(verb_rows, RowsArguments{.table = "orders", .at = xid_of(shop.updated)});
    CHECK(json["rows"][0]["values"]["note"] == "ONE");
    CHECK(json["rows"][0]["values"]["note2"] == "long one");

    const auto [code, copy] =
        shop.ask(verb_extract, ExtractArguments{.table = "orders", .at = "latest"}, Output::text);
    CHECK(code == 0);
    CHECK(copy == "2\ttwo again\tnew\n10\t\\N\tx\n");
    const auto [with, header] =
        shop.ask(verb_extract, ExtractArguments{.table = "orders", .at = "latest", .header = true},
                 Output::text);
    CHECK(header.rfind("id\tnote\tnote2\n", 0) == 0);
}

TEST_CASE("Where not all that happened to a table is known, its rows are not guessed") {
    Shop shop;
    pb::JournalTableLeft left;
    left.set_cluster("main");
    left.set_journal_id(storage::text_of(must(shop.repository->journals("main")).front().id));
    left.set_table_oid(shop.orders->relation().oid());
    left.set_from_lsn(shop.updated.end_lsn.value);
    left.set_to_lsn(shop.deleted.end_lsn.value);
    left.set_cause("it was out");
    storage::must(shop.repository->enter_table_left(left));
    CHECK(shop.ask(verb_rows, RowsArguments{.table = "orders", .at = xid_of(shop.updated)}).first ==
          0);
    for (const std::string& at : {xid_of(shop.deleted), std::string("latest")}) {
        const auto [code, text] = shop.ask(verb_rows, RowsArguments{.table = "orders", .at = at});
        CHECK(code == kExitTarget);
    }
    CHECK(shop.ask(verb_extract, ExtractArguments{.table = "orders", .at = "latest"}).first ==
          kExitTarget);
    const auto notes = [&](const std::string& since) {
        return shop.json(verb_changes,
                         ChangesArguments{.table = "orders", .since = since})["notes"];
    };
    REQUIRE(notes("earliest").size() == 1);
    CHECK(notes("earliest")[0].get<std::string>().find("it was out") != std::string::npos);
    CHECK(notes(xid_of(shop.later)).size() == 1);  // no snapshot has been taken since
}

TEST_CASE("undo puts deleted rows back whole, the last one first, and names what came later") {
    Shop shop;
    UndoArguments arguments{.transaction = xid_of(shop.deleted)};
    const auto [code, sql] = shop.ask(verb_undo, arguments, Output::text);
    REQUIRE(code == 0);
    const auto at = [&](const std::string& piece) { return sql.find(piece); };
    CHECK(at("VALUES ('3', 'THREE', 'long three')") < at("VALUES ('2', 'two', 'long two')"));
    CHECK(at("VALUES ('2', 'two', 'long two')") < at("VALUES ('1', 'ONE', 'long one')"));
    CHECK(at("VALUES ('1', 'ONE', 'long one')") < at("COMMIT;"));
    CHECK(at("insert of public.orders (id)=(2) by xid " + std::to_string(shop.later.commit.xid)) <
          at("BEGIN;"));
    Json json = shop.json(verb_undo, arguments);
    CHECK(json["conflict_count"] == 1);
    CHECK(json["not_undone_count"] == 0);
    CHECK(json["statements"].size() == 5);

    json = shop.json(verb_undo, UndoArguments{.transaction = xid_of(shop.updated)});
    CHECK(json["statements"][1]["sql"].get<std::string>().find(
              "SET \"note\" = 'three' WHERE \"id\" = '3' AND \"note\" IS NOT DISTINCT FROM 'THREE' "
              "AND \"note2\" IS NOT DISTINCT FROM 'long three'") != std::string::npos);
    CHECK(json["conflict_count"] == 2);

    json = shop.json(verb_undo, UndoArguments{.table = "orders",
                                              .since = xid_of(shop.inserted),
                                              .until = xid_of(shop.later)});
    CHECK(json["transactions"] == 4);
    CHECK(json["changes"] == 8);
    CHECK(json["conflict_count"] == 0);
    CHECK(json["statements"].size() == 10);
    CHECK(shop.ask(verb_undo, UndoArguments{.transaction = "xid:1"}).first == kExitTarget);
}

TEST_CASE("A table without a key is counted, and a truncation is named as what is not undone") {
    Journaled shop;
    shop.snapshot(shop.lines, {{"1", "a"}, {"1", "a"}});
    shop.write({{JournalRecordKind::inserted, {}, MadeValues{"1", "a"}, "lines"},
                {JournalRecordKind::deleted, MadeValues{"1", "a"}, {}, "lines"},
                {JournalRecordKind::updated, MadeValues{"1", "a"}, MadeValues{"1", "b"}, "lines"}});
    const Written changed = shop.written.back();
    const Written truncated = shop.write({{JournalRecordKind::truncated, {}, {}, "lines"}});
    shop.quiet();
    const RowsArguments before{.table = "\"order lines\"", .before = xid_of(truncated)};
    const auto [code, csv] = shop.ask(verb_rows, before, Output::csv);
    CHECK(csv == "id,note\n1,a\n1,b\n");
    CHECK(shop.json(verb_rows, RowsArguments{.table = "order lines", .at = "latest"})["rows"]
              .empty());
    Json json = shop.json(verb_undo, UndoArguments{.transaction = xid_of(truncated)});
    CHECK(json["not_undone_count"] == 1);
    CHECK(json["statements"].size() == 3);
    CHECK(json["statements"][1]["sql"].get<std::string>().find("RAISE") != std::string::npos);
    json = shop.json(verb_undo, UndoArguments{.transaction = xid_of(truncated), .partial = true});
    CHECK(json["statements"].size() == 2);
    json = shop.json(verb_undo, UndoArguments{.transaction = xid_of(changed)});
    CHECK(json["statements"].size() == 5);
    CHECK(json["conflict_count"] == 1);
}

TEST_CASE(
    "Where no snapshot precedes, rows are refused, and it is told from when on they are known") {
    Journaled shop;
    const Written first = shop.write({insert({"1", "a", "b"})});
    shop.snapshot(shop.orders, {{"1", "a", "b"}});
    shop.write({update({"1", "A", kUnchanged})});
    shop.quiet();
    CHECK(shop.ask(verb_rows, RowsArguments{.table = "orders", .before = xid_of(first)}).first ==
          kExitTarget);
    CHECK(shop.ask(verb_rows, RowsArguments{.table = "orders", .at = xid_of(first)}).first ==
          kExitDone);
}

TEST_CASE("follow hands out each change once, and goes on behind a commit") {
    Shop shop;
    auto lines = [&](const std::string& from) {
        const auto [code, text] = shop.ask(
            verb_follow, FollowArguments{.from_lsn = from, .until_idle = true}, Output::jsonl);
        CHECK(code == 0);
        std::vector<Json> found;
        for (std::size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos;
             at = end + 1)
            found.push_back(Json::parse(text.substr(at, end - at)));
        return found;
    };
    const auto all = lines("0/0");
    REQUIRE(all.size() == 12);
    CHECK(all[0]["type"] == "change");
    CHECK(all[0]["xid"] == shop.inserted.commit.xid);
    CHECK(all[0]["new"]["note"] == "three");
    REQUIRE(all[4]["type"] == "commit");
    CHECK(all[4]["xid"] == shop.updated.commit.xid);
    const auto rest = lines(all[4]["end_lsn"].get<std::string>());
    CHECK(rest == std::vector<Json>(all.begin() + 5, all.end()));
    CHECK(lines(all[11]["end_lsn"].get<std::string>()).empty());
    const auto of_table = shop.ask(
        verb_follow, FollowArguments{.table = "ordres", .from_lsn = "0/0", .until_idle = true},
        Output::jsonl);
    CHECK(of_table.first != 0);
}

}  // namespace
}  // namespace walvault::agent
