// What a walk through a journal gives while the journal changes under it.
#include "storage/journal_walk.h"

#include <doctest/doctest.h>

#include "tests/unit/storage/journal_stage.h"

namespace walvault::storage {
namespace {

using Kind = JournalRecordKind;

// A transaction that inserts rows `first` to `last`, each of them a batch of its own in the tail.
void insert(JournalKeeper& keeper, Xid xid, const RelationRef& table, int first, int last) {
    keeper.transaction(1000 * xid, xid, [&](BatchWriter& writer) {
        for (int n = first; n <= last; ++n) {
            writer.change(Kind::inserted, table, made_insert({std::to_string(n), "note"}));
            if (n < last) must(keeper.store());
        }
    });
    must(keeper.store());
}

// Transactions of one batch and of more than are read ahead, of one table and of another beside
// them: what stands in batches of its own in a tail shares some in a pack.
void fill(JournalKeeper& keeper) {
    for (Xid xid = 1; xid <= 12; ++xid)
        insert(keeper, xid, xid % 3 == 0 ? kLines : kOrders, 1, 1);
    insert(keeper, 20, kLines, 1, 2);
    insert(keeper, 21, kOrders, 1, 30);
    insert(keeper, 22, kLines, 1, 1);
    insert(keeper, 23, kOrders, 1, 25);
    insert(keeper, 24, kLines, 1, 3);
    for (std::uint64_t lsn = 24'100; lsn < 25'000; lsn += 100) {
        keeper.writer.message(false, Lsn{lsn}, "note", as_bytes("said"));
        must(keeper.store());
    }
    for (Xid xid = 30; xid <= 39; ++xid)
        insert(keeper, xid, kOrders, 1, 1);
}

struct Read {
    JournalQuery query;
    std::optional<JournalKey> key = {};

    // "21[1;2;]" for each transaction; `behind` is called behind each change, with their number.
    std::string told(RepositoryView& view, const std::function<void(int)>& behind = {}) const {
        auto reader = must(JournalReader::open(view, must(view.journals("main")).front()));
        std::string text;
        int changes = 0;
        JournalSink sink;
        sink.on_begin = [&](const JournalTransaction& transaction) -> Result<bool> {
            text += std::to_string(transaction.xid) + "[";
            return true;
        };
        sink.on_change = [&](const JournalTransaction& transaction,
                             const JournalChange& change) -> Result<bool> {
            const bool is_row = change.kind == Kind::inserted;
            text += std::to_string(transaction.xid) + ":" +
                    (is_row ? std::string(must(TupleReader::read(change.new_tuple))[0].text)
                            : to_string(change.lsn)) +
                    ";";
            if (behind) behind(++changes);
            return true;
        };
        sink.on_end = [&](const JournalTransaction&) -> Result<bool> {
            text += "]";
            return true;
        };
        must(key ? reader.read_key(*key, query, sink) : reader.read(query, sink));
        return text;
    }
};

}  // namespace

TEST_CASE("wherever a tail is closed under a reader, it is given each transaction once and whole") {
    const JournalKey key{16'400, {"1"}};
    for (JournalOrder order : {JournalOrder::forward, JournalOrder::backward}) {
        const Read all{{.order = order}};
        Read orders = all;
        orders.query.tables = {16'400};
        Read row = all;
        row.key = key;
        for (const Read* read : std::initializer_list<const Read*>{&all, &orders, &row})
            for (int fifteenths = 1; fifteenths <= 11; ++fifteenths) {
                JournalStage stage;
                JournalKeeper& keeper = stage.keeper;
                fill(keeper);
                const std::string whole = read->told(*stage.view());
                const auto count = static_cast<int>(std::ranges::count(whole, ';'));
                const int at = 1 + count * fifteenths / 15;
                CAPTURE(order == JournalOrder::backward);
                CAPTURE(read->query.tables.size());
                CAPTURE(read->key.has_value());
                CAPTURE(at);
                const std::string found = read->told(*stage.view(), [&](int changes) {
                    if (changes == at) must(keeper.close());
                });
                CHECK_FALSE(keeper.tail);
                CHECK(found == whole);
                CHECK(read->told(*stage.view()) == whole);
            }
    }
}

}  // namespace walvault::storage
