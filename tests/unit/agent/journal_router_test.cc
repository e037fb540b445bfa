#include "agent/journal_router.h"

#include <doctest/doctest.h>

#include "agent/column_masks.h"
#include "agent/journal_attachment.h"
#include "agent/journal_capture.h"

namespace walvault::agent {
namespace {

using pgoutput::Column;

// Tuples as pgoutput sends them: nullopt is NULL, "\1" a TOASTed value that was not changed.
ByteBuffer tuple_of(const std::vector<std::optional<std::string>>& values) {
    ByteBuffer bytes;
    append_be(bytes, static_cast<std::uint16_t>(values.size()));
    for (const auto& value : values) {
        if (!value || *value == "\1") {
            bytes.push_back(static_cast<std::byte>(value ? 'u' : 'n'));
            continue;
        }
        bytes.push_back(static_cast<std::byte>('t'));
        append_be(bytes, static_cast<std::uint32_t>(value->size()));
        append(bytes, as_bytes(*value));
    }
    return bytes;
}

ByteBuffer new_tuple(const std::vector<std::optional<std::string>>& values) {
    ByteBuffer bytes{static_cast<std::byte>('N')};
    append(bytes, tuple_of(values));
    return bytes;
}

struct Rig {
    std::vector<Column> columns{
        {true, "id", 23, -1}, {false, "email", 25, -1}, {false, "note", 25, -1}};
    JournalRouter router;

    explicit Rig(std::vector<Lsn> ends = {Lsn{100}, Lsn{100}})
        : router(options(), std::move(ends)) {
        tell(1, "orders");
        tell(2, "users");
    }
    static JournalRouter::Options options() {
        JournalRouter::Options options;
        options.journal_count = 2;
        options.journal_of = [](const TableNames& names) {
            return names.table == "users" || names.root_table == "users" ? std::size_t{1}
                                                                         : std::size_t{0};
        };
        options.rule_of = [](const TableNames& names, std::string_view column) {
            if (names.table != "users") return ColumnRule::keep;
            return column == "email"  ? ColumnRule::mask
                   : column == "note" ? ColumnRule::drop
                                      : ColumnRule::keep;
        };
        options.mask = [](std::string_view column, std::string_view value) {
            return std::string(column) + "=" + std::to_string(value.size());
        };
        return options;
    }
    void tell(pgoutput::Oid oid, std::string_view name) {
        pgoutput::Relation relation;
        relation.oid = oid;
        relation.schema = "public";
        relation.name = name;
        relation.columns = columns;
        REQUIRE(router.take_relation(relation,
                                     {.primary_key = {"id"}, .type_names = {{23, "integer"}}}));
    }
    void begin(std::uint64_t commit, Xid xid) {
        REQUIRE(router.take(pgoutput::Begin{Lsn{commit}, WallTime(Micros(7)), xid}, {}));
    }
    void insert(pgoutput::Oid oid, const std::vector<std::optional<std::string>>& values) {
        REQUIRE(router.take(pgoutput::Insert{0, oid, {}}, new_tuple(values)));
    }
    void commit(std::uint64_t commit, std::uint64_t end) {
        REQUIRE(router.take(pgoutput::Commit{Lsn{commit}, Lsn{end}, WallTime(Micros(7))}, {}));
    }
};

// The records of the batches, as letters, with the columns of each tuple.
std::string text_of(const std::vector<JournalBatch>& batches) {
    std::string text;
    for (const JournalBatch& batch : batches) {
        auto reader = BatchReader::open(batch.plain);
        REQUIRE(reader);
        JournalRecordView record;
        for (;;) {
            auto more = reader->next(record);
            REQUIRE(more);
            if (!*more) break;
            text += static_cast<char>(record.kind);
            if (record.new_tuple.empty()) continue;
            auto values = TupleReader::read(record.new_tuple);
            REQUIRE(values);
            text += reader->relations()[record.relation].table() + "(";
            for (const TupleValue& value : *values)
                text += (value.kind == TupleValue::Kind::null        ? "-"
                         : value.kind == TupleValue::Kind::unchanged ? "?"
                         : value.kind == TupleValue::Kind::masked    ? "#" + std::string(value.text)
                                                                     : std::string(value.text)) +
                        ";";
            text += ")";
        }
    }
    return text;
}

TEST_CASE("A transaction is split by class, and each part is whole") {
    Rig rig;
    rig.begin(110, 5);
    rig.insert(1, {"1", "a@b", std::nullopt});
    rig.insert(2, {"2", "c@de", "secret"});
    CHECK(rig.router.is_inside_transaction());
    rig.commit(110, 120);
    CHECK(rig.router.end_lsn() == Lsn{120});
    const JournalCut cut = rig.router.take_all();
    CHECK(cut.end_lsn == Lsn{120});
    REQUIRE(cut.batches.size() == 2);
    CHECK(text_of(cut.batches[0]) == "BIorders(1;a@b;-;)C");
    // The e-mail is a hash of its column and value, and nothing of the note is there.
    CHECK(text_of(cut.batches[1]) == "BIusers(2;#public.users.email=4;)C");
    CHECK(rig.router.is_empty());
    CHECK(rig.router.transaction_count() == 1);
    CHECK(rig.router.change_count() == 2);
}

TEST_CASE("What a journal has already is not taken again; what another lacks is") {
    Rig rig({Lsn{120}, Lsn{100}});
    rig.begin(110, 5);
    rig.insert(1, {"1", "x", "y"});
    rig.insert(2, {"2", "x", "y"});
    rig.commit(110, 120);
    rig.begin(120, 6);
    rig.insert(1, {"3", "x", "y"});
    rig.commit(120, 130);
    const JournalCut cut = rig.router.take_all();
    CHECK(text_of(cut.batches[0]) == "BIorders(3;x;y;)C");
    CHECK(text_of(cut.batches[1]) == "BIusers(2;#public.users.email=1;)C");
}

TEST_CASE("A transaction without changes of a journal moves the end and writes nothing") {
    Rig rig;
    rig.begin(110, 5);
    rig.commit(110, 120);
    CHECK(rig.router.is_empty());
    const JournalCut cut = rig.router.take_all();
    CHECK(cut.end_lsn == Lsn{120});
    CHECK(cut.batches[0].empty());
    CHECK(cut.batches[1].empty());
}

TEST_CASE("Updates, deletes, truncations and unchanged values pass as they are") {
    Rig rig;
    rig.begin(110, 5);
    ByteBuffer update{static_cast<std::byte>('K')};
    append(update, tuple_of({"1", std::nullopt, std::nullopt}));
    append(update, new_tuple({"2", "\1", "n"}));
    REQUIRE(rig.router.take(pgoutput::Update{0, 1, pgoutput::OldRow::key, {}, {}}, update));
    const std::vector<pgoutput::Oid> tables{1, 2};
    REQUIRE(rig.router.take(pgoutput::Truncate{0, true, false, tables}, {}));
    rig.commit(110, 120);
    const JournalCut cut = rig.router.take_all();
    CHECK(text_of(cut.batches[0]) == "BUorders(2;?;n;)TC");
    CHECK(text_of(cut.batches[1]) == "BTC");
}

TEST_CASE("A large transaction is cut into pieces that are full") {
    Rig rig;
    rig.begin(110, 5);
    const std::string value(64 << 10, 'x');
    for (int i = 0; i < 20; ++i)
        rig.insert(1, {std::to_string(i), value, value});
    CHECK(rig.router.has_full());
    rig.insert(2, {"1", "a", "b"});
    const JournalCut full = rig.router.take_full();
    // What is not the main journal's goes first, and all of it.
    CHECK(full.end_lsn == Lsn{});
    CHECK(full.batches[0].size() >= 1);
    CHECK(full.batches[1].size() == 1);
    CHECK_FALSE(rig.router.has_full());
    rig.commit(110, 120);
    const JournalCut rest = rig.router.take_all();
    CHECK(rest.end_lsn == Lsn{120});
    CHECK(text_of(rest.batches[1]) == "BC");
}

TEST_CASE("A change that fits to nothing is an error, not a guess") {
    Rig rig;
    rig.begin(110, 5);
    auto unknown = rig.router.take(pgoutput::Insert{0, 9, {}}, new_tuple({"1"}));
    REQUIRE_FALSE(unknown);
    CHECK(unknown.error().code == Errc::corrupt);
    // Of a table whose columns are masked every tuple is looked into.
    CHECK_FALSE(rig.router.take(pgoutput::Insert{0, 2, {}}, new_tuple({"1"})));
    ByteBuffer torn = new_tuple({"1", "a", "b"});
    torn.resize(torn.size() - 1);
    CHECK_FALSE(rig.router.take(pgoutput::Insert{0, 2, {}}, torn));
    CHECK_FALSE(rig.router.take(pgoutput::StreamStop{}, {}));
}

TEST_CASE("Transactions that do not follow one another are refused") {
    Rig rig;
    CHECK_FALSE(rig.router.take(pgoutput::Commit{Lsn{110}, Lsn{120}, {}}, {}));
    rig.begin(110, 5);
    CHECK_FALSE(rig.router.take(pgoutput::Begin{Lsn{110}, {}, 6}, {}));
    CHECK_FALSE(rig.router.take(pgoutput::Commit{Lsn{111}, Lsn{120}, {}}, {}));
    CHECK_FALSE(rig.router.take(pgoutput::Commit{Lsn{110}, Lsn{110}, {}}, {}));
    rig.commit(110, 120);
    rig.begin(115, 6);
    CHECK_FALSE(rig.router.take(pgoutput::Commit{Lsn{115}, Lsn{120}, {}}, {}));
    // What is told of a table has to fit into a batch.
    Rig large;
    const std::string name(600'000, 'x');
    const std::vector<Column> columns{{true, name, 23, -1}, {false, name, 23, -1}};
    pgoutput::Relation relation;
    relation.oid = 3;
    relation.columns = columns;
    CHECK_FALSE(large.router.take_relation(relation, {}));
}

TEST_CASE("A partition's columns are masked as those of its table") {
    JournalConfig config;
    config.masked_columns = {"public.users.email", "public.odd.table.note"};
    config.dropped_columns = {"public.users.card"};
    const ColumnMasks masks(config);
    CHECK(masks.rule_of({.schema = "public", .table = "users"}, "email") == ColumnRule::mask);
    CHECK(masks.rule_of({.schema = "public", .table = "users"}, "card") == ColumnRule::drop);
    CHECK(masks.rule_of({.schema = "public", .table = "users"}, "id") == ColumnRule::keep);
    CHECK(masks.rule_of({.schema = "parts",
                         .table = "users_2024",
                         .root_schema = "public",
                         .root_table = "users"},
                        "email") == ColumnRule::mask);
    CHECK(masks.rule_of({.schema = "public", .table = "odd.table"}, "note") == ColumnRule::mask);
    CHECK(masks.rule_of({.schema = "public", .table = "orders"}, "email") == ColumnRule::keep);
    // Whose partition it was is not known any more: it might be that of a masked one.
    CHECK(masks.rule_of({.schema = "public", .table = "users_2023", .is_gone = true}, "email") ==
          ColumnRule::mask);
}

TEST_CASE("A row of a snapshot follows the same rules") {
    Rig rig;
    const std::vector<pgoutput::Value> row{{pgoutput::ValueKind::text, "7"},
                                           {pgoutput::ValueKind::text, "a@b"},
                                           {pgoutput::ValueKind::null, {}}};
    auto plain = rig.router.encode_row(1, row);
    REQUIRE(plain);
    CHECK(TupleReader::read(*plain)->size() == 3);
    auto masked = rig.router.encode_row(2, row);
    REQUIRE(masked);
    auto values = TupleReader::read(*masked);
    REQUIRE(values->size() == 2);
    CHECK((*values)[1].kind == TupleValue::Kind::masked);
    CHECK(rig.router.journal_of(2) == 1);
    CHECK(rig.router.relation(2)->relation().columns_size() == 2);
    CHECK_FALSE(rig.router.encode_row(9, row));
}

TEST_CASE("A journal goes on where nothing is missing, and says what is") {
    const JournalSlotSide none{};
    auto first = choose_journal_attachment(std::nullopt, std::nullopt, none);
    REQUIRE(std::holds_alternative<MakeJournalSlot>(first));
    CHECK(std::get<MakeJournalSlot>(first).cause.empty());

    auto gone = choose_journal_attachment(Lsn{50}, std::nullopt, none);
    REQUIRE(std::holds_alternative<MakeJournalSlot>(gone));
    CHECK_FALSE(std::get<MakeJournalSlot>(gone).cause.empty());
    CHECK_FALSE(std::get<MakeJournalSlot>(gone).drop_first);

    const JournalSlotSide lost{true, "it was invalidated", Lsn{50}};
    auto made = choose_journal_attachment(Lsn{50}, std::nullopt, lost);
    REQUIRE(std::holds_alternative<MakeJournalSlot>(made));
    CHECK(std::get<MakeJournalSlot>(made).drop_first);

    // Told of less than is stored: it sends some again, and these are dropped.
    auto on = choose_journal_attachment(Lsn{50}, std::nullopt, {true, "", Lsn{40}});
    REQUIRE(std::holds_alternative<ContinueJournal>(on));
    CHECK(std::get<ContinueJournal>(on).from_lsn == Lsn{50});
    CHECK(std::holds_alternative<ContinueJournal>(
        choose_journal_attachment(Lsn{50}, std::nullopt, {true, "", Lsn{50}})));

    auto behind = choose_journal_attachment(Lsn{50}, std::nullopt, {true, "", Lsn{51}});
    REQUIRE(std::holds_alternative<JournalBehind>(behind));
    CHECK(std::get<JournalBehind>(behind).to_lsn == Lsn{51});

    auto adopted = choose_journal_attachment(std::nullopt, std::nullopt, {true, "", Lsn{51}});
    REQUIRE(std::holds_alternative<AdoptJournalSlot>(adopted));
    CHECK(std::get<AdoptJournalSlot>(adopted).start_lsn == Lsn{51});
}

TEST_CASE("A journal follows no server that went another way") {
    auto record = [](int id, std::optional<int> parent, std::uint64_t start, std::uint64_t fork,
                     pb::HistoryOpened::Cause cause, TimelineId timeline) {
        storage::HistoryRecord made;
        made.id[0] = static_cast<std::byte>(id);
        if (parent) made.parent.emplace()[0] = static_cast<std::byte>(*parent);
        made.start_lsn = Lsn{start};
        made.fork_lsn = Lsn{fork};
        made.cause = cause;
        made.timeline = timeline;
        return made;
    };
    auto id = [](int number) {
        Id16 made{};
        made[0] = static_cast<std::byte>(number);
        return made;
    };
    const std::vector<storage::HistoryRecord> histories{
        record(1, {}, 0, 0, pb::HistoryOpened::FIRST, 1),
        record(2, 1, 90, 100, pb::HistoryOpened::PROMOTION, 2),
        record(3, 2, 190, 200, pb::HistoryOpened::PROMOTION, 3),
        record(4, 1, 60, 70, pb::HistoryOpened::FORK, 1),
        record(5, {}, 300, 0, pb::HistoryOpened::GAP, 3),
        record(6, {}, 400, 0, pb::HistoryOpened::UNRELATED, 9),
        record(8, 5, 340, 350, pb::HistoryOpened::PROMOTION, 4)};
    CHECK_FALSE(left_at(histories, id(1), id(1)));
    CHECK(left_at(histories, id(2), id(1)) == Lsn{100});
    CHECK(left_at(histories, id(3), id(1)) == Lsn{100});
    CHECK(left_at(histories, id(3), id(2)) == Lsn{200});
    // Two that left the same one; and back to what a branch left.
    CHECK(left_at(histories, id(4), id(3)) == Lsn{70});
    CHECK(left_at(histories, id(1), id(4)) == Lsn{70});
    CHECK_FALSE(left_at(histories, id(5), id(3)));
    CHECK(left_at(histories, id(5), id(2)) == Lsn{300});
    CHECK(left_at(histories, id(6), id(3)) == Lsn{400});
    // WAL was missed, then a failover: what was there before the promotion is the server's still.
    CHECK(left_at(histories, id(8), id(3)) == Lsn{350});
    CHECK(left_at(histories, id(8), id(2)) == Lsn{340});
    CHECK(left_at(histories, id(7), id(3)) == Lsn{});

    const JournalSlotSide slot{true, "", Lsn{120}};
    auto ahead = choose_journal_attachment(Lsn{150}, Lsn{100}, slot);
    REQUIRE(std::holds_alternative<MakeJournalSlot>(ahead));
    CHECK(std::get<MakeJournalSlot>(ahead).drop_first);
    CHECK(std::get<MakeJournalSlot>(ahead).left_lsn == Lsn{100});
    // It had nothing that the other server lacks.
    CHECK(std::holds_alternative<ContinueJournal>(
        choose_journal_attachment(Lsn{150}, Lsn{150}, slot)));
}

TEST_CASE("A slot has a name of its own for each database") {
    CHECK(journal_slot_name("walvault_journal", "app") == "walvault_journal_app");
    const std::string odd = journal_slot_name("walvault_journal", "App DB");
    CHECK(odd.starts_with("walvault_journal_app_db_"));
    CHECK(odd != journal_slot_name("walvault_journal", "app db"));
    const std::string longest = journal_slot_name("walvault_journal", std::string(63, 'x'));
    CHECK(longest.size() == 63);
    CHECK(longest != journal_slot_name("walvault_journal", std::string(62, 'x')));
}

}  // namespace
}  // namespace walvault::agent
