// The row journal, written, closed, recovered and read back.
#include "storage/journal_reader.h"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/support/faulty_file_system.h"
#include "tests/unit/storage/journal_stage.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

// Transaction number `n` inserts order n, changes order n / 2 and deletes line n.
void some_transaction(JournalKeeper& keeper, std::uint64_t n) {
    keeper.transaction(1000 * n, static_cast<Xid>(700 + n), [&](BatchWriter& writer) {
        const std::string id = std::to_string(n);
        writer.change(Kind::inserted, kOrders, made_insert({id, "note " + id}));
        writer.change(Kind::updated, kOrders, made_update({std::to_string(n / 2), kUnchanged}));
        if (n % 3 == 0) writer.change(Kind::deleted, kLines, made_delete({id, {}}));
        if (n % 10 == 0) writer.truncate(false, false, {kLines});
    });
}

std::string text_of_change(const JournalChange& change) {
    std::string line(1, static_cast<char>(change.kind));
    for (const pb::JournalRelation* table : change.truncated)
        line += " " + table->table();
    if (change.relation != nullptr) line += " " + change.relation->table();
    for (ByteSpan tuple : {change.old_tuple, change.new_tuple})
        if (!tuple.empty()) line += " " + std::string(must(TupleReader::read(tuple))[0].text);
    return line;
}

// "705[I orders 5;U orders 2;]" for each transaction.
std::string told(JournalReader& reader, const JournalQuery& query = {},
                 const JournalKey* key = nullptr) {
    std::string text;
    JournalSink sink;
    sink.on_begin = [&](const JournalTransaction& transaction) -> Result<bool> {
        CHECK(transaction.end_lsn == transaction.commit_lsn + 40);
        text += std::to_string(transaction.xid) + "[";
        return true;
    };
    sink.on_change = [&](const JournalTransaction&, const JournalChange& change) -> Result<bool> {
        text += text_of_change(change) + ";";
        return true;
    };
    sink.on_end = [&](const JournalTransaction&) -> Result<bool> {
        text += "]";
        return true;
    };
    must(key != nullptr ? reader.read_key(*key, query, sink) : reader.read(query, sink));
    return text;
}

std::string expected(std::uint64_t first, std::uint64_t last) {
    std::string text;
    for (std::uint64_t n = first; n <= last; ++n) {
        const std::string id = std::to_string(n);
        text += std::to_string(700 + n) + "[I orders " + id + ";U orders " + std::to_string(n / 2) +
                ";";
        if (n % 3 == 0) text += "D lines " + id + ";";
        if (n % 10 == 0) text += "T lines;";
        text += "]";
    }
    return text;
}

// A transaction of many pieces, with one row that is larger than a frame.
void large_transaction(JournalKeeper& keeper, std::uint64_t lsn, Xid xid, int rows) {
    keeper.transaction(lsn, xid, [&](BatchWriter& writer) {
        for (int i = 0; i < rows; ++i) {
            const std::string note(i == rows / 2 ? 9'000'000 : 20'000,
                                   static_cast<char>('a' + i % 26));
            writer.change(Kind::inserted, kOrders,
                          made_insert({std::to_string(1'000'000 + i), note}));
        }
    });
}

}  // namespace

TEST_CASE("A journal is read forwards and backwards, from tails and packs") {
    JournalStage stage;
    JournalKeeper& keeper = stage.keeper;
    for (std::uint64_t n = 1; n <= 60; ++n) {
        some_transaction(keeper, n);
        must(keeper.store());
        if (n % 25 == 0) must(keeper.close());
    }
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    CHECK(reader.journal().end_lsn == Lsn{60'040});
    CHECK(told(reader) == expected(1, 60));
    CHECK(told(reader, {.from = Lsn{5040}, .to = Lsn{30'040}}) == expected(6, 30));
    CHECK(told(reader, {.from = Lsn{5039}, .to = Lsn{30'039}}) == expected(5, 29));

    std::string backward;
    JournalSink sink;
    sink.on_begin = [&](const JournalTransaction& transaction) -> Result<bool> {
        backward += std::to_string(transaction.xid) + " ";
        return transaction.xid > 720;
    };
    must(reader.read({.order = JournalOrder::backward}, sink));
    CHECK(backward.starts_with("760 759 758"));
    CHECK(backward.ends_with("721 720 "));
    CHECK(told(reader, {.from = Lsn{8040}, .to = Lsn{9040}, .order = JournalOrder::backward}) ==
          "709[D lines 9;U orders 4;I orders 9;]");

    CHECK(told(reader, {.tables = {16'500}, .kinds = {Kind::truncated}}) ==
          "710[T lines;]720[T lines;]730[T lines;]740[T lines;]750[T lines;]760[T lines;]");
    CHECK(told(reader, {.xid = 733}) == expected(33, 33));
    const auto tables = must(reader.tables());
    REQUIRE(tables.size() == 2);
    CHECK(tables[0].changes.inserted == 60);
    CHECK(tables[1].name == "lines");
    CHECK(tables[1].changes.deleted == 20);
    CHECK(tables[1].changes.truncated == 6);
    for (const pb::PackInfo& pack : must(view->packs("main")))
        CHECK(must(view->verify_pack(pack, true)) > 0);
}

TEST_CASE("Messages are read by range, time and number, and packs of other times are not opened") {
    JournalStage stage;
    JournalKeeper& keeper = stage.keeper;
    for (std::uint64_t n = 1; n <= 40; ++n) {
        keeper.transaction(1000 * n, static_cast<Xid>(700 + n), [&](BatchWriter& writer) {
            writer.change(Kind::inserted, kOrders, made_insert({std::to_string(n), "x"}));
            if (n % 10 == 0)
                writer.message(true, Lsn{1000 * n - 10}, "p", as_bytes(std::to_string(n)));
        });
        must(keeper.store());
        if (n % 15 == 0) must(keeper.close());
    }
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    const auto messages = [&](JournalQuery query, JournalReader* other = nullptr) {
        query.kinds = {Kind::message};
        std::string text;
        JournalSink sink;
        sink.on_change = [&](const JournalTransaction& of, const JournalChange& change) {
            text += std::to_string(of.xid) + " " + std::string(as_text(change.content)) + ";";
            return Result<bool>(true);
        };
        must((other != nullptr ? *other : reader).read(query, sink));
        return text;
    };
    CHECK(messages({}) == "710 10;720 20;730 30;740 40;");
    CHECK(messages({.order = JournalOrder::backward}) == "740 40;730 30;720 20;710 10;");
    CHECK(messages({.from = Lsn{10'040}, .to = Lsn{30'040}}) == "720 20;730 30;");
    CHECK(messages({.xid = 720}) == "720 20;");
    const WallTime of_20 = made_begin(20'000, 0).at;
    const WallTime of_30 = made_begin(30'000, 0).at;
    CHECK(messages({.from = Lsn{}, .since = of_20, .until = of_30}) == "720 20;730 30;");
    CHECK(messages({.from = Lsn{}, .since = of_20 + Micros(1), .until = of_30 - Micros(1)}) == "");
    std::filesystem::remove(stage.root + "/" + must(view->packs("main")).front().path());
    const auto later = stage.view();
    JournalReader fresh = reader_of(*later);
    CHECK(messages({.from = Lsn{}, .since = of_20, .until = of_30}, &fresh) == "720 20;730 30;");
    CHECK(messages({.xid = 720}, &fresh) == "720 20;");
    CHECK_FALSE(fresh.read({}, {}).has_value());
}

TEST_CASE("The changes of one key are found by key blocks, and in open tails") {
    JournalStage stage;
    JournalKeeper& keeper = stage.keeper;
    for (std::uint64_t n = 1; n <= 100; ++n) {
        some_transaction(keeper, n);
        must(keeper.store());
        if (n % 20 == 0 && n < 100) must(keeper.close());
    }
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    for (int id : {1, 7, 20, 45}) {
        const JournalKey key{16'400, {std::to_string(id)}};
        const std::string name = std::to_string(id);
        std::string wanted = std::to_string(700 + id) + "[I orders " + name + ";]";
        for (int n : {2 * id, 2 * id + 1})
            wanted += std::to_string(700 + n) + "[U orders " + name + ";]";
        if (id == 1) wanted = "701[I orders 1;]702[U orders 1;]703[U orders 1;]";
        CHECK(told(reader, {}, &key) == wanted);
    }
    const JournalKey line{16'500, {"33"}};
    CHECK(told(reader, {.from = Lsn{30'040}, .to = Lsn{50'040}}, &line) ==
          "733[D lines 33;]740[T lines;]750[T lines;]");
    const JournalKey none{16'400, {"12345"}};
    CHECK(told(reader, {}, &none).empty());
}

TEST_CASE("A transaction of many pieces is one, whichever way it is read") {
    JournalStage stage;
    JournalKeeper& keeper = stage.keeper;
    some_transaction(keeper, 1);
    large_transaction(keeper, 2000, 800, 300);
    some_transaction(keeper, 3);
    must(keeper.store());
    CHECK(keeper.tail->frame_count() > 10);
    for (bool closed : {false, true}) {
        CAPTURE(closed);
        if (closed) must(keeper.close());
        const auto view = stage.view();
        JournalReader reader = reader_of(*view);
        const std::string all = told(reader);
        CHECK(all.starts_with("701[I orders 1;U orders 0;]800[I orders 1000000;"));
        CHECK(all.ends_with(";I orders 1000299;]" + expected(3, 3)));
        CHECK(std::ranges::count(all, ';') == 305);
        const std::string back = told(reader, {.order = JournalOrder::backward});
        CHECK(back.starts_with("703[D lines 3;U orders 1;I orders 3;]800[I orders 1000299;"));
        CHECK(back.ends_with("I orders 1000000;]701[U orders 0;I orders 1;]"));
        CHECK(back.find("I orders 1000150;") != std::string::npos);
        CHECK(std::ranges::count(back, ';') == 305);
        const JournalKey giant{16'400, {"1000150"}};
        CHECK(told(reader, {}, &giant) == "800[I orders 1000150;]");
        const JournalKey last{16'400, {"1000299"}};
        CHECK(told(reader, {.order = JournalOrder::backward}, &last) == "800[I orders 1000299;]");
        CHECK(told(reader, {.from = Lsn{2040}}) == expected(3, 3));
        std::string summaries;
        must(reader.summarize({}, 3, [&](const JournalSummary& summary) -> Result<bool> {
            summaries += std::to_string(summary.transaction.xid) + " " +
                         std::to_string(summary.rows()) + " ";
            return true;
        }));
        CHECK(summaries == "800 300 703 3 ");
        for (const pb::PackInfo& pack : must(view->packs("main")))
            CHECK(must(view->verify_pack(pack, true)) > 0);
    }
}

TEST_CASE("Pieces of a transaction that was given up do not count") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    some_transaction(keeper, 1);
    keeper.writer.begin(made_begin(2000, 702));
    for (int i = 0; i < 100; ++i)
        keeper.writer.change(Kind::inserted, kOrders,
                             made_insert({std::to_string(i), std::string(30'000, 'x')}));
    must(keeper.store(false));
    keeper.writer.abandon();
    CHECK(keeper.tail->frame_count() >= 2);
    for (std::uint64_t n = 2; n <= 5; ++n)
        some_transaction(keeper, n);
    must(keeper.store());
    // And at the end, where the agent is killed.
    keeper.writer.begin(made_begin(6000, 706));
    for (int i = 0; i < 100; ++i)
        keeper.writer.change(Kind::inserted, kOrders,
                             made_insert({std::to_string(i), std::string(30'000, 'x')}));
    must(keeper.store(false));
    for (bool closed : {false, true}) {
        CAPTURE(closed);
        if (closed) {
            keeper.drop();
            repository.reset();
            repository = must(stage.open());
            CHECK(stage.paths_of(".tail").empty());
        }
        const auto view = stage.view();
        JournalReader reader = reader_of(*view);
        CHECK(told(reader) == expected(1, 5));
        std::string backward = told(reader, {.order = JournalOrder::backward});
        CHECK(std::ranges::count(backward, '[') == 5);
        CHECK(reader.journal().end_lsn == Lsn{5040});
    }
}

TEST_CASE("Another class counts up to the end of the main journal") {
    Stage stage;
    stage.create();
    auto repository = must(stage.open());
    JournalKeeper main(*repository), secret(*repository);
    must(main.begin());
    must(secret.begin("secret"));
    some_transaction(secret, 1);
    some_transaction(secret, 2);
    must(secret.store());
    must(main.store_quiet(1040, WallTime(Micros(5'000'000))));
    {
        const auto view = stage.view();
        JournalReader reader = reader_of(*view, "secret");
        CHECK(reader.journal().end_lsn == Lsn{2040});
        CHECK(reader.journal().whole_until_lsn == Lsn{1040});
        CHECK(told(reader) == expected(1, 1));
    }
    must(main.store_quiet(9000, WallTime(Micros(6'000'000))));
    must(main.close());  // of quiet frames alone: no pack
    const auto view = stage.view();
    JournalReader reader = reader_of(*view, "secret");
    CHECK(reader.journal().whole_until_lsn == Lsn{9000});
    CHECK(told(reader) == expected(1, 2));
    const auto journals = must(view->journals("main"));
    CHECK(journals[0].end_lsn == Lsn{9000});
    CHECK(journals[0].covered_until == WallTime(Micros(6'000'000)));
    CHECK(must(repository->journals("main"))[0].end_lsn == Lsn{9000});
}

TEST_CASE("A gap is told of by who reads across it") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    some_transaction(keeper, 1);
    must(keeper.store());
    must(keeper.close());
    pb::JournalGap gap;
    gap.set_cluster("main");
    gap.set_journal_id(text_of(keeper.journal.id));
    gap.set_from_lsn(1040);
    gap.set_to_lsn(4000);
    gap.set_cause("the slot was lost");
    must(repository->enter_journal_gap(gap));
    JournalKeeper behind(*repository);
    must(behind.begin());
    CHECK(behind.end == Lsn{4000});
    some_transaction(behind, 5);
    must(behind.store());
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    for (JournalOrder order : {JournalOrder::forward, JournalOrder::backward}) {
        auto read = reader.read({.order = order}, {});
        REQUIRE_FALSE(read.has_value());
        CHECK(read.error().code == Errc::gap);
        CHECK(read.error().message.find("the slot was lost") != std::string::npos);
    }
    CHECK(told(reader, {.from = Lsn{4000}}) == expected(5, 5));
    CHECK(told(reader, {.to = Lsn{1040}}) == expected(1, 1));
    CHECK(must(reader.gaps()).size() == 1);
}

TEST_CASE("A snapshot counts when it is taken, and one that was cut off leaves nothing") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    must(
        keeper.snapshot(kOrders, 500, {{"1", "a"}, {"2", std::string(5'000'000, 'x')}, {"3", {}}}));
    must(keeper.snapshot(kOrders, 900, {}));
    must(keeper.snapshot(kLines, 900, {{"9", "z"}}));
    {
        auto cut_off = must(repository->begin_snapshot(keeper.journal, keeper.cluster(), 1,
                                                       made_snapshot(16'400, 950)));
        BatchWriter batches;
        batches.row(kOrders, made_tuple({"7", "q"}));
        must(cut_off->append(*batches.take()));
        CHECK(stage.paths_of(".tmp").size() == 1);
    }
    CHECK(stage.paths_of(".tmp").empty());
    std::ofstream(stage.root + "/main/journal/" + to_hex(keeper.journal.id) +
                  "-00000000000003E8-1.99-00000.rows.pack")
        << "what a crash left";
    repository.reset();
    repository = must(stage.open());
    CHECK(stage.paths_of(".pack").size() == 3);
    CHECK(must(repository->last_snapshots(keeper.journal.id)).size() == 2);
    const auto view = stage.view(false);
    JournalReader reader = reader_of(*view);
    CHECK(must(reader.snapshots(16'400)).size() == 2);
    CHECK_FALSE(must(reader.snapshot_at(16'400, Lsn{499})).has_value());
    const auto first = must(reader.snapshot_at(16'400, Lsn{899}));
    REQUIRE(first.has_value());
    CHECK(first->taken().row_count() == 3);
    std::string rows;
    const auto sink = [&](const pb::JournalRelation& table, ByteSpan tuple) -> Result<bool> {
        rows += table.table();
        if (!tuple.empty()) rows += std::string(must(TupleReader::read(tuple))[0].text);
        rows += " ";
        return true;
    };
    must(reader.read_rows(*first, sink));
    CHECK(rows == "orders orders1 orders2 orders3 ");
    rows.clear();
    must(reader.read_rows_of_key(*first, {16'400, {"2"}}, sink));
    CHECK(rows == "orders2 ");
    rows.clear();
    must(reader.read_rows(*must(reader.snapshot_at(16'400, Lsn{900})), sink));
    CHECK(rows == "orders ");
    for (const pb::PackInfo& pack : must(view->packs("main")))
        CHECK(must(view->verify_pack(pack, true)) > 0);
}

TEST_CASE(
    "Where a journal's tables were last looked at is known again, and of each journal by itself") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    CHECK_FALSE(must(repository->looked_until(keeper.journal.id)).has_value());
    must(repository->note_looked(keeper.journal.id, Lsn{400}));
    must(repository->note_looked(keeper.journal.id, Lsn{300}));
    repository.reset();
    repository = must(stage.open());
    CHECK(must(repository->looked_until(keeper.journal.id)) == Lsn{300});
    CHECK_FALSE(must(repository->looked_until(Id16{})).has_value());
}

TEST_CASE("A tail that is closed while it is read is gone on with in its pack") {
    for (JournalOrder order : {JournalOrder::forward, JournalOrder::backward}) {
        JournalStage stage;
        JournalKeeper& keeper = stage.keeper;
        some_transaction(keeper, 1);
        large_transaction(keeper, 2000, 800, 300);
        must(keeper.store());
        for (std::uint64_t n = 3; n <= 8; ++n) {
            some_transaction(keeper, n);
            must(keeper.store());
        }
        const auto view = stage.view();
        JournalReader reader = reader_of(*view);
        std::string text;
        JournalSink sink;
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            text += std::to_string(transaction.xid) + text_of_change(change) + ";";
            if (transaction.xid == 800 && change.kind == Kind::inserted && keeper.tail)
                must(keeper.close());
            return true;
        };
        must(reader.read({.order = order}, sink));
        CHECK_FALSE(keeper.tail);
        CHECK(std::ranges::count(text, ';') == 2 + 300 + 6 * 2 + 2);
    }
}

}  // namespace walvault::storage
