// A journal whose server went another way: what it had behind the point where they part is taken
// back, and the same LSNs mean something else from then on.
#include <doctest/doctest.h>

#include "storage/journal_reader.h"
#include "tests/unit/storage/journal_stage.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

const RelationRef kLater = RelationVersion::make(made_relation(16'600, "later"));

void insert(JournalKeeper& keeper, std::uint64_t lsn, Xid xid, const RelationRef& table,
            const std::string& id) {
    keeper.transaction(lsn, xid, [&](BatchWriter& writer) {
        writer.change(Kind::inserted, table, made_insert({id, "note"}));
    });
    must(keeper.store());
}

pb::JournalGap left(const JournalKeeper& keeper, std::uint64_t from, std::uint64_t to) {
    pb::JournalGap gap;
    gap.set_cluster("main");
    gap.set_journal_id(text_of(keeper.journal.id));
    gap.set_from_lsn(from);
    gap.set_to_lsn(to);
    gap.set_cause("the server went another way");
    gap.set_left_end_lsn(keeper.end.value);
    return gap;
}

pb::JournalTableLeft table_left(const JournalKeeper& keeper, std::uint64_t from, std::uint64_t to) {
    pb::JournalTableLeft left;
    left.set_cluster("main");
    left.set_journal_id(text_of(keeper.journal.id));
    left.set_table_oid(16'400);
    left.set_from_lsn(from);
    left.set_to_lsn(to);
    return left;
}

// Transactions 1 to 10 at 1000, 2000, …; packs end behind 4 and 7, and a quiet stretch at 12,000.
void first_way(Repository& repository, JournalKeeper& keeper) {
    must(keeper.begin());
    for (std::uint64_t n = 1; n <= 10; ++n) {
        insert(keeper, 1000 * n, static_cast<Xid>(700 + n), n < 8 ? kOrders : kLater,
               std::to_string(n));
        if (n == 4 || n == 7) must(keeper.close());
    }
    must(keeper.close());
    must(keeper.store_quiet(12'000, WallTime(Micros(9'000'000))));
    must(keeper.close());
    must(keeper.snapshot(kOrders, 3500, {{"1", "note"}}));
    must(keeper.snapshot(kOrders, 6500, {{"1", "note"}}));
    must(repository.note_looked(keeper.journal.id, Lsn{9000}));
    must(repository.enter_table_left(table_left(keeper, 4500, 9500)));
    must(repository.enter_table_left(table_left(keeper, 8500, 9500)));
}

// "701 702 ", or what else `read` made of it.
template <class Read>
std::string xids_of(Read read) {
    std::string text;
    JournalSink sink;
    sink.on_begin = [&](const JournalTransaction& transaction) -> Result<bool> {
        text += std::to_string(transaction.xid) + " ";
        return true;
    };
    const Result<> done = read(sink);
    if (!done) text += done.error().code == Errc::gap ? "gap" : done.error().message;
    return text;
}

std::string xids(JournalReader& reader, const JournalQuery& query) {
    return xids_of([&](const JournalSink& sink) { return reader.read(query, sink); });
}

std::string xids_of_key(JournalReader& reader, const std::string& id, const JournalQuery& query) {
    return xids_of([&](const JournalSink& sink) {
        return reader.read_key({16'400, {id}}, query, sink);
    });
}

// Of messages outside of all transactions.
std::string messages(JournalReader& reader, JournalQuery query) {
    std::string text;
    JournalSink sink;
    sink.on_change = [&](const JournalTransaction&, const JournalChange& change) -> Result<bool> {
        text += std::string(change.name) + " ";
        return true;
    };
    query.kinds = {Kind::message};
    must(reader.read(query, sink));
    return text;
}

void check_second_way(RepositoryView& view) {
    JournalReader reader = reader_of(view);
    CHECK(xids(reader, {.to = Lsn{5040}}) == "701 702 703 704 705 ");
    CHECK(xids(reader, {.from = Lsn{5200}}) == "800 801 802 ");
    CHECK(xids(reader, {}) == "701 702 703 704 705 gap");
    CHECK(xids(reader, {.order = JournalOrder::backward}) == "802 801 800 gap");
    CHECK(xids(reader, {.to = Lsn{5040}, .order = JournalOrder::backward}) ==
          "705 704 703 702 701 ");
    CHECK(xids(reader, {.from = Lsn{5200}, .to = Lsn{7000}, .order = JournalOrder::backward}) ==
          "800 ");
    CHECK(xids_of_key(reader, "3", {.to = Lsn{5040}}) == "703 ");
    CHECK(xids_of_key(reader, "6", {.to = Lsn{5040}}).empty());
    CHECK(xids_of_key(reader, "6", {.from = Lsn{5200}}) == "801 ");
    std::uint64_t rows = 0;
    must(reader.summarize({.from = Lsn{5200}}, 0, [&](const JournalSummary& summary) {
        rows += summary.rows();
        return Result<bool>(true);
    }));
    CHECK(rows == 3);
    const auto gaps = must(reader.gaps());
    REQUIRE(gaps.size() == 1);
    CHECK(gaps.front().left_end_lsn() == 12'000);
    const auto snapshot = must(reader.snapshot_at(16'400, Lsn{9000}));
    REQUIRE(snapshot.has_value());
    CHECK(snapshot->taken().lsn() == 3500);
    const auto tables = must(reader.table_left(16'400));
    REQUIRE(tables.size() == 1);
    CHECK(tables.front().from_lsn() == 4500);
    CHECK(tables.front().to_lsn() == 5040);
}

}  // namespace

TEST_CASE("A journal goes on before its end where its server went another way") {
    Stage stage;
    stage.create();
    auto repository = must(stage.open());
    JournalKeeper first(*repository);
    first_way(*repository, first);
    const std::size_t packs = must(stage.view()->packs("main")).size();
    must(repository->enter_journal_gap(left(first, 5040, 5200)));
    const JournalRecord record = must(repository->journals("main")).front();
    CHECK(record.end_lsn == Lsn{5200});
    CHECK(record.covered_until == WallTime{});
    CHECK(must(repository->looked_until(record.id)) == Lsn{5040});
    CHECK(must(repository->last_snapshots(record.id)).size() == 1);

    JournalKeeper second(*repository);
    must(second.begin());
    insert(second, 6000, 800, kOrders, "5");
    insert(second, 7040, 801, kOrders, "6");  // where a pack of the first way began
    must(second.close());
    insert(second, 9000, 802, kOrders, "7");
    check_second_way(*stage.view());
    must(second.close());
    check_second_way(*stage.view());
    // The index that is made anew says the same; and nothing that was stored is taken for what a
    // crash left.
    check_second_way(*stage.view(false));
    repository.reset();
    repository = must(stage.open());
    check_second_way(*stage.view());
    const auto view = stage.view();
    CHECK(must(view->packs("main")).size() == packs + 2);
    for (const pb::PackInfo& pack : must(view->packs("main")))
        CHECK(must(view->verify_pack(pack, true)) > 0);
    CHECK(must(view->journals("main")).front().end_lsn == Lsn{9040});
}

TEST_CASE("A journal is taken back twice, and to before it began") {
    Stage stage;
    stage.create();
    auto repository = must(stage.open());
    JournalKeeper first(*repository);
    first_way(*repository, first);
    must(repository->enter_journal_gap(left(first, 5040, 5200)));
    JournalKeeper second(*repository);
    must(second.begin());
    insert(second, 6000, 800, kOrders, "5");
    must(second.close());
    must(repository->enter_journal_gap(left(second, 5100, 5300)));
    {
        const auto view = stage.view();
        JournalReader reader = reader_of(*view);
        const auto gaps = must(reader.gaps());
        REQUIRE(gaps.size() == 2);
        CHECK(gaps[0].from_lsn() == 5040);
        CHECK(gaps[0].to_lsn() == 5100);
        CHECK(xids(reader, {.from = Lsn{5300}}).empty());
    }
    JournalKeeper third(*repository);
    must(third.begin());
    must(repository->enter_journal_gap(left(third, 50, 60)));
    JournalKeeper fourth(*repository);
    must(fourth.begin());
    CHECK(fourth.end == Lsn{60});
    insert(fourth, 80, 900, kOrders, "1");
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    CHECK(reader.journal().start_lsn == Lsn{50});
    CHECK(xids(reader, {.from = Lsn{60}}) == "900 ");
    CHECK(must(reader.gaps()).size() == 1);
    CHECK(must(reader.snapshots(16'400)).empty());
}

TEST_CASE("A message behind the last transaction of its pack counts, unless it was taken back") {
    JournalStage stage;
    auto& repository = stage.repository;
    JournalKeeper& keeper = stage.keeper;
    for (std::uint64_t n = 1; n <= 3; ++n) {
        insert(keeper, 1000 * n, static_cast<Xid>(700 + n), kOrders, std::to_string(n));
        keeper.writer.message(false, Lsn{1000 * n + 500}, "m" + std::to_string(n), as_bytes("x"));
        must(keeper.store());
        must(keeper.close());
    }
    insert(keeper, 4000, 704, kOrders, "4");
    must(keeper.close());
    {
        const auto view = stage.view();
        JournalReader reader = reader_of(*view);
        CHECK(messages(reader, {}) == "m1 m2 m3 ");
        CHECK(messages(reader, {.order = JournalOrder::backward}) == "m3 m2 m1 ");
    }
    // Behind the second pack's last transaction, and before its message.
    must(repository->enter_journal_gap(left(keeper, 2040, 2100)));
    JournalKeeper second(*repository);
    must(second.begin());
    insert(second, 2600, 800, kOrders, "5");
    must(second.close());
    const auto view = stage.view();
    JournalReader reader = reader_of(*view);
    CHECK(messages(reader, {.to = Lsn{2040}}) == "m1 ");
    CHECK(messages(reader, {.from = Lsn{2100}}).empty());
    CHECK(xids(reader, {.from = Lsn{2100}}) == "800 ");
}

}  // namespace walvault::storage
