#include "agent/journal_marks.h"

#include "tests/unit/agent/journaled.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

// By WAL alone these transactions have no mark: what is told of them the journal tells.
struct Marked : Journaled {
    Written bulk, truncated, ddl, odd;
    LogArguments arguments;
    Marked() {
        std::vector<Step> many;
        for (int i = 0; i < 1200; ++i)
            many.push_back(remove(std::to_string(i)));
        many.push_back(insert({"1", "a", "b"}));
        bulk = write(many);
        close_tail();
        truncated = write(
            {{JournalRecordKind::truncated}, {JournalRecordKind::truncated, {}, {}, "lines"}});
        ddl = write({message("walvault.ddl", R"({"tag":"ALTER TABLE","dropped":false,"objects":)"
                                             R"([{"type":"table","name":"public.items"}],)"
                                             R"("count":1,"user":"app"})"),
                     insert({"2", "a", "b"})});
        odd = write({message("walvault.ddl", "\x1b[2J not as the trigger writes it"),
                     message("other", "{}")});
        arguments.since = "2001-01-01 00:00:00";
    }
    std::string text() { return ask(verb_log, arguments, Output::text).second; }
};

TEST_CASE("Without a table log tells what the journal knows: bulk changes, truncations and DDL") {
    Marked shop;
    shop.write({message("other", "x"), insert({"3", "a", "b"})});
    shop.quiet();
    Json json = shop.json(verb_log, shop.arguments);
    Json events = json["events"];
    REQUIRE(events.size() == 4);
    CHECK(json["more"] == false);
    REQUIRE(json["notes"].size() == 1);
    CHECK(json["notes"][0].get<std::string>().find("begins at LSN") != std::string::npos);
    CHECK(events[0]["kind"] == "bulk");
    CHECK(events[0]["xid"] == shop.bulk.commit.xid);
    CHECK(events[0]["lsn"] == to_string(shop.bulk.commit.start_lsn));
    CHECK(events[0]["deleted_rows"] == 1200);
    CHECK(events[0]["journal"]["database"] == "shop");
    CHECK(events[0]["journal"]["tables"][0]["table"] == "public.orders");
    CHECK(events[0]["restore"].get<std::string>().find(xid_of(shop.bulk)) != std::string::npos);
    CHECK(events[1]["kind"] == "truncate");
    CHECK(events[1]["journal"]["tables"].size() == 2);
    CHECK(events[2]["kind"] == "ddl");
    CHECK(events[2]["journal"]["ddl"][0]["objects"][0]["name"] == "public.items");
    CHECK(events[2]["journal"]["tables"][0]["inserted_rows"] == 1);
    CHECK(events[3]["journal"]["ddl"][0]["content"] == "\x1b[2J not as the trigger writes it");
    const std::string text = shop.text();
    CHECK(text.find("  deleted 1 200 rows of public.orders, inserted 1 row of public.orders\n") !=
          std::string::npos);
    CHECK(text.find("  truncated public.\"order lines\", public.orders\n") != std::string::npos);
    CHECK(text.find("  ALTER TABLE public.items by app; inserted 1 row of public.orders\n") !=
          std::string::npos);
    CHECK(text.find("  walvault.ddl '\\x1B[2J not as the trigger writes it'\n") !=
          std::string::npos);

    shop.arguments.min_rows = 1201;
    CHECK(shop.json(verb_log, shop.arguments)["events"].size() == 1);
    shop.arguments.min_rows = 1202;
    CHECK(shop.json(verb_log, shop.arguments)["events"].empty());
    shop.arguments.min_rows = 1;
    CHECK(shop.json(verb_log, shop.arguments)["events"].size() == 3);
    shop.arguments.kinds = {"ddl"};
    CHECK(shop.ask(verb_log, shop.arguments).first == kExitUsage);
    shop.arguments.min_rows = 0;
    CHECK(shop.json(verb_log, shop.arguments)["events"].size() == 2);
    shop.arguments.limit = 1;
    json = shop.json(verb_log, shop.arguments);
    REQUIRE(json["events"].size() == 1);
    CHECK(json["events"][0]["xid"] == shop.odd.commit.xid);
    CHECK(json["more"] == true);
    shop.arguments.kinds = {"point"};
    json = shop.json(verb_log, shop.arguments);
    CHECK_FALSE(json.contains("more"));
}

TEST_CASE(
    "log joins commits of the WAL by number and LSN, and where the journal has a gap says so") {
    Marked shop;
    shop.skip(2);
    const Written behind = shop.write({insert({"9", "a", "b"})});
    shop.arguments.kinds = {"commit"};
    shop.arguments.limit = 1000;
    Json json = shop.json(verb_log, shop.arguments);
    std::map<Xid, Json> by_xid;
    for (const Json& event : json["events"])
        by_xid[event["xid"].get<Xid>()] = event;
    CHECK(by_xid.size() == shop.wal.commits.size());
    CHECK(by_xid[shop.bulk.commit.xid]["deleted_rows"] == 0);  // as WAL has it
    CHECK(by_xid[shop.bulk.commit.xid]["journal"]["tables"][0]["deleted_rows"] == 1200);
    CHECK(by_xid[shop.ddl.commit.xid]["journal"]["ddl_count"] == 1);
    CHECK(by_xid[behind.commit.xid].contains("journal"));
    CHECK_FALSE(by_xid[behind.commit.xid - 1].contains("journal"));
    CHECK_FALSE(by_xid[behind.commit.xid + 1].contains("journal"));
    // Told whatever is asked for, and where nothing is found.
    shop.arguments.kinds = {"ddl"};
    for (const Json& notes : {json["notes"], shop.json(verb_log, shop.arguments)["notes"]}) {
        REQUIRE(notes.size() == 3);
        CHECK(notes[0].get<std::string>().find("the slot was lost") != std::string::npos);
        CHECK(notes[1].get<std::string>().find("begins at LSN") != std::string::npos);
        CHECK(notes[2].get<std::string>().find("has everything up to LSN") != std::string::npos);
    }
    shop.arguments.kinds = {"commit"};
    CHECK(shop.text().find("commit: ALTER TABLE public.items by app; inserted 1 row") !=
          std::string::npos);
}

TEST_CASE("A transaction with DDL and rows is taken back but for its DDL, which is told") {
    Marked shop;
    shop.quiet();
    const Json json = shop.json(verb_undo, UndoArguments{.transaction = xid_of(shop.ddl)});
    bool is_told = false;
    for (const Json& note : json["notes"])
        is_told = is_told || note.get<std::string>().find("ALTER TABLE public.items by app") !=
                                 std::string::npos;
    CHECK(is_told);
}

TEST_CASE("Of messages without number the newest are looked through, and that is told") {
    Marked shop;
    // A window of WAL for each, as far as their own positions say.
    std::vector<Step> many{message("walvault.ddl", R"({"tag":"CREATE X","objects":[]})")};
    for (int i = 0; i < 300; ++i)
        many.push_back(message("other", "x", Lsn{(std::uint64_t(i) + 7) << 20}));
    const Written flooded = shop.write(many);
    shop.quiet();
    const Json json = shop.json(verb_log, shop.arguments);
    const auto has_note = [&](const char* text) {
        return std::ranges::any_of(json["notes"], [&](const Json& note) {
            return note.get<std::string>().find(text) != std::string::npos;
        });
    };
    CHECK(has_note("has many messages"));
    shop.arguments.kinds = {"ddl"};
    const Json all = shop.json(verb_log, shop.arguments);
    CHECK(all["events"].back()["xid"] == flooded.commit.xid);
}

TEST_CASE("A journal that cannot be read takes nothing away from what WAL tells") {
    Marked shop;
    shop.quiet();
    shop.arguments.kinds = {"commit"};
    shop.arguments.limit = 1000;
    const std::size_t count = shop.json(verb_log, shop.arguments)["events"].size();
    for (const std::string& path : shop.paths_of(".pack"))
        if (path.find("/journal/") != std::string::npos) std::filesystem::remove(path);
    const Json json = shop.json(verb_log, shop.arguments);
    CHECK(json["events"].size() == count);
    REQUIRE(json["notes"].size() == 2);
    CHECK(json["notes"][0].get<std::string>().find("begins at LSN") != std::string::npos);
    CHECK(json["notes"][1].get<std::string>().find("cannot be read") != std::string::npos);
}

TEST_CASE("show and follow tell DDL as it was, and other messages as they are") {
    Marked shop;
    shop.quiet();
    const auto show = [&](const Written& of) {
        return shop.ask(verb_show, ShowArguments{.transaction = xid_of(of)}, Output::text).second;
    };
    CHECK(show(shop.ddl).find("  ddl       ALTER TABLE public.items by app\n") !=
          std::string::npos);
    CHECK(show(shop.odd).find("  ddl       walvault.ddl '\\x1B[2J not as") != std::string::npos);
    CHECK(show(shop.odd).find("  message   other  '{}'\n") != std::string::npos);
    Json json = shop.json(verb_show, ShowArguments{.transaction = xid_of(shop.ddl)});
    CHECK(json["changes"][0]["kind"] == "message");
    CHECK(json["changes"][0]["ddl"]["tag"] == "ALTER TABLE");
    json = shop.json(verb_show, ShowArguments{.transaction = xid_of(shop.odd)});
    CHECK_FALSE(json["changes"][0].contains("ddl"));
    const auto [code, lines] = shop.ask(
        verb_follow, FollowArguments{.from_lsn = "0/0", .until_idle = true}, Output::jsonl);
    CHECK(lines.find(R"("ddl":{"tag":"ALTER TABLE","dropped":false)") != std::string::npos);
}

}  // namespace
}  // namespace walvault::agent
