#include "proto/journal_columns.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <random>

#include "proto/frame_format.h"
#include "proto/journal_keys.h"
#include "tests/support/journal_fixture.h"

using namespace walvault;
using Kind = JournalRecordKind;

namespace {

// What is left of a batch where only changes count that name a row with this key, and all else but
// transactions that begin and end here and have nothing left.
std::vector<std::string> told(ByteSpan batch, std::uint32_t oid, std::string_view key) {
    BatchReader reader = BatchReader::open(batch).value();
    const ByteBuffer wanted = encode_journal_key(oid, {key});
    std::vector<std::string> told;
    JournalRecordView record;
    bool is_empty = false;
    while (reader.next(record).value()) {
        if (record.kind == Kind::commit && is_empty) {
            told.pop_back();
            continue;
        }
        bool counts = record.old_tuple.empty() && record.new_tuple.empty();
        if (!counts) {
            const pb::JournalRelation& relation = reader.relations()[record.relation];
            const auto note = [&](ByteSpan each) {
                counts = counts || std::ranges::equal(each, wanted);
            };
            REQUIRE(each_journal_key(relation.oid(), key_columns(relation), record, note));
        }
        if (!counts) continue;
        is_empty = record.kind == Kind::begin && !record.goes_on;
        told.emplace_back(as_text(batch.subspan(record.offset, reader.offset() - record.offset)));
    }
    return told;
}

// Where a row is sought, nothing of it is left out, and little else is there.
void check_sought(const JournalBatch& batch, ByteSpan columns) {
    for (std::uint32_t oid : {16'400U, 16'500U})
        for (const char* key : {"1", "2", "9", "77", "4711", "nothing"}) {
            CAPTURE(oid);
            CAPTURE(key);
            const RowSought sought{oid, SoughtValue(key)};
            ByteBuffer found;
            REQUIRE(from_columns(columns, found, &sought));
            CHECK(told(found, oid, key) == told(batch.plain, oid, key));
            CHECK(found.size() <= batch.plain.size());
        }
}

void check_returns(const JournalBatch& batch) {
    const auto columns = to_columns(batch.plain).value();
    REQUIRE(columns);
    CHECK(columns->plain.size() < batch.plain.size());
    CHECK(is_columns(columns->plain));
    CHECK_FALSE(is_columns(batch.plain));
    CHECK(std::ranges::is_sorted(columns->cuts));
    for (std::size_t cut : columns->cuts)
        CHECK(cut < columns->plain.size());
    ByteBuffer again;
    REQUIRE(from_columns(columns->plain, again));
    CHECK(again == batch.plain);
    check_sought(batch, columns->plain);
}

// Updates of ten rows, as an application makes them.
JournalBatch made_batch(int transactions, bool with_old = false) {
    BatchWriter writer;
    const RelationRef relation = RelationVersion::make(made_relation(16'400, "item", 4));
    std::uint64_t lsn = 1 << 20;
    for (int n = 0; n < transactions; ++n) {
        const JournalBegin begin = made_begin(lsn += 3000, static_cast<Xid>(1000 + n));
        writer.begin(begin);
        for (int row = 0; row < 10; ++row) {
            const MadeValues now = {std::to_string(n * 10 + row), std::to_string(n % 7 - 3),
                                    std::nullopt, "the note of row " + std::to_string(row)};
            MadeValues old = now;
            old[1] = "17";
            writer.change(Kind::updated, relation,
                          with_old ? made_update(now, old, 'O') : made_update(now));
        }
        writer.commit(begin.commit_lsn, begin.commit_lsn + 40, begin.at);
    }
    return writer.take().value();
}

}  // namespace

TEST_CASE("updates as columns have a fraction of the bytes") {
    const JournalBatch batch = made_batch(100);
    check_returns(batch);
    const auto columns = to_columns(batch.plain).value();
    CHECK(columns->plain.size() < batch.plain.size() / 2);
    CHECK(columns->cuts.size() >= 2);
}

TEST_CASE("one row that is sought comes without the others") {
    const JournalBatch batch = made_batch(100);
    const RowSought sought{16'400, SoughtValue("77")};
    ByteBuffer found;
    REQUIRE(from_columns(to_columns(batch.plain).value()->plain, found, &sought));
    JournalTables tables;
    const BatchFacts facts = describe_batch(found, tables).value();
    CHECK(facts.summary.commit_count() == 1);
    REQUIRE(facts.frame.counts_size() == 1);
    CHECK(facts.frame.counts(0).updated() == 1);

    const RowSought nothing{16'400, SoughtValue("4711")};
    REQUIRE(from_columns(to_columns(batch.plain).value()->plain, found, &nothing));
    CHECK(describe_batch(found, tables).value().summary.commit_count() == 0);
}

TEST_CASE("pieces of a transaction are there, whether they have the row that is sought or not") {
    BatchWriter writer;
    const RelationRef relation = RelationVersion::make(made_relation(16'400, "item"));
    const JournalBegin begin = made_begin(1 << 20, 7);
    writer.begin(begin);
    std::vector<JournalBatch> pieces;
    const auto drain = [&] {
        while (auto full = writer.take_full())
            pieces.push_back(std::move(*full));
    };
    for (int n = 0; pieces.size() < 3; ++n) {
        writer.change(Kind::inserted, relation,
                      made_insert({{std::to_string(n), std::string(200, 'x')}}));
        drain();
    }
    writer.commit(begin.commit_lsn, begin.commit_lsn + 40, begin.at);
    pieces.push_back(writer.take().value());
    JournalTables tables;
    for (std::size_t n = 0; n < pieces.size(); ++n) {
        CAPTURE(n);
        check_returns(pieces[n]);
        const RowSought nothing{16'400, SoughtValue("-1")};
        ByteBuffer found;
        REQUIRE(from_columns(to_columns(pieces[n].plain).value()->plain, found, &nothing));
        const BatchFacts facts = describe_batch(found, tables).value();
        CHECK(facts.frame.goes_on() == (n > 0));
        CHECK(facts.summary.commit_count() == (n + 1 == pieces.size() ? 1 : 0));
        BatchReader reader = BatchReader::open(found).value();
        JournalRecordView record;
        REQUIRE(reader.next(record).value());
        CHECK(record.kind == Kind::begin);
    }
}

TEST_CASE("what an old row and the new one share is there once") {
    const JournalBatch batch = made_batch(100, true);
    check_returns(batch);
    const std::size_t with_old = to_columns(batch.plain).value()->plain.size();
    const std::size_t without = to_columns(made_batch(100).plain).value()->plain.size();
    CHECK(with_old < without + 100 * 10 * 6);
}

TEST_CASE("each kind of record, and each kind of value") {
    BatchWriter writer;
    const RelationRef one = RelationVersion::make(made_relation(16'400, "one"));
    const RelationRef two = RelationVersion::make(made_relation(16'500, "two", 3));
    const std::string filler(300, 'x');
    writer.message(false, Lsn{77}, "outside", as_bytes(filler));
    for (int n = 1; n <= 20; ++n) {
        const JournalBegin begin =
            made_begin(static_cast<std::uint64_t>(n) << 20, static_cast<Xid>(n));
        writer.begin(begin);
        writer.origin(Lsn{5}, "elsewhere");
        writer.change(Kind::inserted, one, made_insert({{"1", filler}}));
        writer.change(Kind::inserted, two, made_insert({{"1", std::nullopt, std::nullopt}}));
        writer.change(Kind::updated, one,
                      made_update({{"2", kUnchanged}}, MadeValues{"1", std::nullopt}));
        writer.change(Kind::updated, two,
                      made_update({{"2", filler, kUnchanged}}, MadeValues{"1", filler, "q"}, 'O'));
        writer.change(Kind::deleted, two, made_delete({"2", filler, filler}, 'O'));
        writer.change(Kind::deleted, one, made_delete({"2", std::nullopt}));
        ByteBuffer masked = made_insert({{"4711", "0123456789abcdef0123456789abcdef"}});
        masked[3] = std::byte{'m'};
        writer.change(Kind::inserted, one, masked);
        writer.truncate(true, false, {two, one});
        writer.message(true, Lsn{78}, "inside", as_bytes("hello"));
        writer.commit(begin.commit_lsn, begin.commit_lsn + 40, begin.at);
    }
    writer.begin(made_begin(30 << 20, 4711));
    writer.change(Kind::inserted, one, made_insert({{"9", "open"}}));
    check_returns(writer.take().value());
}

TEST_CASE("rows of a snapshot, and a part of a large one") {
    BatchWriter writer;
    const RelationRef relation = RelationVersion::make(made_relation(16'400, "item", 3));
    for (int n = 0; n < 500; ++n)
        writer.row(relation,
                   made_tuple({std::to_string(n), "2026-01-01 00:00:00+00", std::nullopt}));
    check_returns(writer.take().value());
    writer.row(relation, made_tuple({"1", std::string(3 << 20, 'x'), std::nullopt}));
    while (auto part = writer.take_full()) {
        // A part is bytes of nothing known: it stays as it is, or comes back.
        const auto columns = to_columns(part->plain).value();
        ByteBuffer again;
        if (columns) CHECK(from_columns(columns->plain, again));
        if (columns) CHECK(again == part->plain);
    }
}

TEST_CASE("a batch that would only grow stays as it is") {
    BatchWriter writer;
    const RelationRef relation = RelationVersion::make(made_relation(16'400, "item", 30));
    const JournalBegin begin = made_begin(1 << 20, 1);
    writer.begin(begin);
    writer.change(Kind::inserted, relation, made_insert(MadeValues(30, "x")));
    writer.commit(begin.commit_lsn, begin.commit_lsn + 40, begin.at);
    CHECK_FALSE(to_columns(writer.take().value().plain).value());
}

TEST_CASE(
    "columns that are cut off, longer, or changed give an error or another batch, never more") {
    const unsigned seed = std::random_device()();
    std::printf("seed %u\n", seed);
    INFO("seed ", seed);
    std::mt19937 random(seed);
    const ByteBuffer plain = to_columns(made_batch(5, true).plain).value()->plain;
    ByteBuffer out;
    for (std::size_t size = 0; size < plain.size(); size += 1 + size / 50)
        CHECK_FALSE(from_columns(ByteSpan(plain).first(size), out));
    ByteBuffer longer = plain;
    longer.push_back(std::byte{0});
    CHECK_FALSE(from_columns(longer, out));
    for (int n = 0; n < 3000; ++n) {
        ByteBuffer changed = plain;
        changed[random() % changed.size()] ^= static_cast<std::byte>(1U << random() % 8);
        const RowSought sought{16'400, SoughtValue(std::to_string(n % 60))};
        for (const RowSought* row : {static_cast<const RowSought*>(nullptr), &sought})
            if (from_columns(changed, out, row)) CHECK(out.size() <= kFramePlainBytesMax);
    }
    ByteBuffer huge = plain;
    store_le(huge.data() + 4, kFramePlainBytesMax + 1);
    CHECK_FALSE(from_columns(huge, out));
    // More columns than the directory has bytes for: refused before there is memory for them.
    pb::JournalRelation wide;
    for (int i = 0; i < 10'000; ++i)
        wide.add_columns();
    const std::string relation = wide.SerializeAsString();
    ByteBuffer empty;
    append_le(empty, std::uint32_t{0xFFFFFFFF});
    append_le(empty, std::uint32_t{100});
    append_le(empty, std::uint32_t{1});
    append_le(empty, static_cast<std::uint32_t>(relation.size()));
    append(empty, as_bytes(relation));
    const auto refused = from_columns(empty, out);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("more than there are bytes") != std::string::npos);
}
