#include "proto/journal_format.h"

#include <doctest/doctest.h>

#include "proto/frame_format.h"
#include "tests/support/journal_fixture.h"

using namespace walvault;
using Kind = JournalRecordKind;

namespace {

constexpr std::uint64_t kCommitBytes = 40;

// A transaction whose commit record is at `lsn`.
template <class Fill>
void transaction(BatchWriter& writer, std::uint64_t lsn, Xid xid, Fill fill) {
    const JournalBegin begin = made_begin(lsn, xid);
    writer.begin(begin);
    fill();
    writer.commit(begin.commit_lsn, Lsn{lsn + kCommitBytes}, begin.at);
}

std::vector<JournalBatch> all_of(BatchWriter& writer) {
    std::vector<JournalBatch> batches;
    while (auto full = writer.take_full())
        batches.push_back(std::move(*full));
    if (auto last = writer.take()) batches.push_back(std::move(*last));
    return batches;
}

// One line for each record of a batch, parts joined.
std::string told(ByteSpan batch, PartJoiner* joiner = nullptr) {
    BatchReader reader = BatchReader::open(batch).value();
    std::string lines;
    JournalRecordView record;
    while (reader.next(record).value()) {
        if (record.kind == Kind::part) {
            if (!joiner->add(record).value()) continue;
            record = reader.read_joined(record, joiner->body()).value();
        }
        lines += static_cast<char>(record.kind);
        if (record.kind == Kind::begin)
            lines += std::to_string(record.xid) + (record.goes_on ? "+" : "");
        if (record.kind == Kind::commit) lines += std::to_string(record.end_lsn.value);
        if (record.kind == Kind::origin || record.kind == Kind::message)
            lines += " " + std::string(record.name) + std::string(as_text(record.content));
        for (std::uint32_t relation : record.relations)
            lines += " " + reader.relations()[relation].table();
        const bool row = !record.old_tuple.empty() || !record.new_tuple.empty();
        if (row) lines += " " + reader.relations()[record.relation].table();
        for (ByteSpan tuple : {record.old_tuple, record.new_tuple}) {
            if (tuple.empty()) continue;
            const auto values = TupleReader::read(tuple).value();
            for (const TupleValue& value : values)
                lines +=
                    " " + (value.kind == TupleValue::Kind::null        ? std::string("null")
                           : value.kind == TupleValue::Kind::unchanged ? "same"
                           : value.text.size() > 20 ? std::to_string(value.text.size()) + " bytes"
                                                    : std::string(value.text));
            if (tuple.data() == record.old_tuple.data()) lines += " ->";
        }
        lines += "\n";
    }
    return lines;
}

ByteBuffer small_batch() {
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    const RelationRef again = RelationVersion::make(made_relation(16'400, "orders"));
    const RelationRef lines = RelationVersion::make(made_relation(16'500, "lines"));
    BatchWriter writer;
    transaction(writer, 1000, 7, [&] {
        writer.origin(Lsn{5}, "elsewhere");
        writer.change(Kind::inserted, orders, made_insert({"1", "new"}));
        writer.change(Kind::updated, again, made_update({"1", kUnchanged}));
        writer.change(Kind::updated, lines, made_update({"3", std::nullopt}, {{"2", {}}}));
        writer.message(true, Lsn{900}, "who", as_bytes(" alice"));
    });
    transaction(writer, 2000, 8, [&] {
        writer.change(Kind::deleted, orders, made_delete({"1", "new"}, 'O'));
        writer.truncate(true, false, {lines, orders});
    });
    auto batches = all_of(writer);
    REQUIRE(batches.size() == 1);
    CHECK(batches[0].end_lsn == Lsn{2000 + kCommitBytes});
    return batches[0].plain;
}

}  // namespace

TEST_CASE("A batch is read as it was written, and has each relation version once") {
    const ByteBuffer batch = small_batch();
    CHECK(BatchReader::open(batch).value().relations().size() == 2);
    CHECK(told(batch) ==
          "B7\n"
          "O elsewhere\n"
          "I orders 1 new\n"
          "U orders 1 same\n"
          "U lines 2 null -> 3 null\n"
          "M who alice\n"
          "C1040\n"
          "B8\n"
          "D orders 1 new ->\n"
          "T lines orders\n"
          "C2040\n");
}

TEST_CASE("What a batch holds is counted by table") {
    JournalTables tables;
    const BatchFacts facts = describe_batch(small_batch(), tables).value();
    REQUIRE(tables.tables().size() == 2);
    CHECK(tables.tables()[1].name() == "lines");
    CHECK(facts.frame.end_lsn() == 2040);
    CHECK_FALSE(facts.frame.goes_on());
    CHECK_FALSE(facts.frame.open());
    CHECK(facts.frame.largest_rows() == 3);
    CHECK(facts.frame.message_count() == 1);
    CHECK(facts.summary.commit_count() == 2);
    CHECK(facts.summary.min_xid() == 7);
    CHECK(facts.summary.max_xid() == 8);
    CHECK(facts.summary.last_at_us() == 1'700'000'000'002'000);
    const pb::JournalCount& orders = facts.frame.counts(0);
    CHECK(orders.inserted() == 1);
    CHECK(orders.updated() == 1);
    CHECK(orders.deleted() == 1);
    CHECK(orders.truncated() == 1);
    CHECK(facts.frame.counts(1).updated() == 1);
}

TEST_CASE("A transaction larger than a batch becomes pieces, and a row larger than one parts") {
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    BatchWriter writer;
    const std::string wide(600'000, 'x');
    const std::string giant(5'000'000, 'y');
    writer.begin(made_begin(1000, 7));
    for (int i = 0; i < 5; ++i)
        writer.change(Kind::inserted, orders, made_insert({std::to_string(i), wide}));
    writer.change(Kind::inserted, orders, made_insert({"9", giant}));
    writer.commit(Lsn{1000}, Lsn{1040}, {});
    const auto batches = all_of(writer);
    CHECK(batches.size() >= 7);
    PartJoiner joiner;
    JournalTables tables;
    std::string lines;
    std::uint64_t rows = 0;
    for (std::size_t i = 0; i < batches.size(); ++i) {
        CHECK(batches[i].plain.size() < 3_MiB);
        CHECK(bool(batches[i].end_lsn) == (i + 1 == batches.size()));
        const BatchFacts facts = describe_batch(batches[i].plain, tables).value();
        CHECK(facts.frame.goes_on() == (i > 0));
        CHECK(facts.frame.open() == (i + 1 < batches.size()));
        for (const pb::JournalCount& count : facts.frame.counts())
            rows += count.inserted();
        lines += told(batches[i].plain, &joiner);
    }
    CHECK(rows == 6);
    CHECK_FALSE(joiner.is_waiting());
    CHECK(lines.ends_with("B7+\nI orders 9 5000000 bytes\nC1040\n"));
}

TEST_CASE("Small transactions are not cut in two, and a large one is") {
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    BatchWriter writer;
    const std::string note(5000, 'x');
    std::uint64_t lsn = 0;
    const auto add = [&](int rows) {
        transaction(writer, lsn += 1000, 7, [&] {
            for (int i = 0; i < rows; ++i)
                writer.change(Kind::inserted, orders, made_insert({std::to_string(i), note}));
        });
    };
    for (int n = 0; n < 300; ++n)
        add(3);
    const auto small = all_of(writer);
    CHECK(small.size() > 10);
    for (const JournalBatch& batch : small) {
        CHECK_FALSE(batch.is_open);
        CHECK(batch.plain.size() < kJournalBatchBytes + 3 * note.size());
    }
    add(100);
    const auto large = all_of(writer);
    REQUIRE(large.size() == 2);
    CHECK(large[0].is_open);
    CHECK(large[0].plain.size() < kJournalBatchBytes + 2 * note.size());
}

TEST_CASE("A truncate of thousands of partitions is cut by their descriptions") {
    BatchWriter writer;
    std::vector<RelationRef> partitions;
    for (std::uint32_t n = 0; n < 10'000; ++n)
        partitions.push_back(
            RelationVersion::make(made_relation(20'000 + n, "part_" + std::to_string(n), 30)));
    transaction(writer, 1000, 7, [&] { writer.truncate(false, false, partitions); });
    std::size_t truncated = 0;
    for (const JournalBatch& batch : all_of(writer)) {
        CHECK(batch.plain.size() < kJournalPieceBytes + 64_KiB);
        JournalTables tables;
        const BatchFacts facts = describe_batch(batch.plain, tables).value();
        for (const pb::JournalCount& count : facts.frame.counts())
            truncated += count.truncated();
    }
    CHECK(truncated == partitions.size());
}

TEST_CASE("A large message is cut and joined") {
    BatchWriter writer;
    const std::string giant(3'000'000, 'y');
    writer.message(false, Lsn{5}, "p", as_bytes(giant));
    PartJoiner joiner;
    std::string lines;
    for (const JournalBatch& batch : all_of(writer))
        lines += told(batch.plain, &joiner);
    CHECK(lines == "M p" + giant + "\n");
}

TEST_CASE("A transaction that is given up leaves the ones before it") {
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    BatchWriter writer;
    transaction(writer, 1000, 7, [&] {
        writer.change(Kind::inserted, orders, made_insert({"1", "a"}));
    });
    writer.begin(made_begin(2000, 8));
    writer.change(Kind::inserted, orders, made_insert({"2", "b"}));
    writer.abandon();
    CHECK_FALSE(writer.is_inside_transaction());
    const auto batches = all_of(writer);
    REQUIRE(batches.size() == 1);
    CHECK(told(batches[0].plain) == "B7\nI orders 1 a\nC1040\n");
    writer.begin(made_begin(2000, 8));
    writer.change(Kind::inserted, orders, made_insert({"2", "b"}));
    CHECK(writer.take().has_value());
    CHECK_FALSE(writer.take().has_value());  // it goes on, and nothing came
    writer.abandon();
    CHECK(all_of(writer).empty());
}

TEST_CASE("Small batches merge into one that says the same") {
    BatchWriter writer;
    BatchMerger merger;
    std::string expected;
    for (std::uint64_t i = 1; i <= 20; ++i) {
        const auto oid = static_cast<std::uint32_t>(16'400 + i % 3);
        const RelationRef table =
            RelationVersion::make(made_relation(oid, "t" + std::to_string(oid)));
        const RelationRef other = RelationVersion::make(made_relation(17'000, "other"));
        transaction(writer, i * 1000, static_cast<Xid>(i), [&] {
            writer.change(Kind::inserted, table, made_insert({std::to_string(i), "a"}));
            if (i == 4) {  // two pieces
                auto piece = writer.take();
                REQUIRE(piece.has_value());
                CHECK(merger.add(piece->plain).value());
                expected += told(piece->plain);
            }
            writer.change(Kind::deleted, other, made_delete({std::to_string(i), {}}));
            writer.truncate(false, true, {other, table});
        });
        for (const JournalBatch& batch : all_of(writer)) {
            CHECK(merger.add(batch.plain).value());
            expected += told(batch.plain);
        }
    }
    const JournalBatch merged = merger.take();
    CHECK(merger.is_empty());
    const std::string again = "B4+\n";  // goes on in the same batch now
    expected.erase(expected.find(again), again.size());
    CHECK(told(merged.plain) == expected);
    CHECK(merged.end_lsn == Lsn{20'040});
    CHECK(BatchReader::open(merged.plain).value().relations().size() == 4);
}

TEST_CASE("Batches that do not follow one another do not merge") {
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    BatchWriter writer;
    writer.begin(made_begin(1000, 7));
    writer.change(Kind::inserted, orders, made_insert({"1", "a"}));
    const JournalBatch first = writer.take().value();
    writer.change(Kind::inserted, orders, made_insert({"2", "a"}));
    const JournalBatch second = writer.take().value();
    BatchMerger without_first;
    CHECK(without_first.add(second.plain).error().code == Errc::corrupt);
    BatchMerger twice;
    CHECK(twice.add(first.plain).value());
    CHECK(twice.add(first.plain).error().code == Errc::corrupt);
}

TEST_CASE("A batch that is cut off anywhere is an error or a shorter one, never a crash") {
    const ByteBuffer batch = small_batch();
    std::size_t whole = 0;
    for (std::size_t size = 0; size < batch.size(); ++size) {
        JournalTables tables;
        auto facts = describe_batch(ByteSpan(batch).first(size), tables);
        if (facts) ++whole;
        if (!facts) CHECK(facts.error().code == Errc::corrupt);
    }
    CHECK(whole == 11);  // it ends before each of its records
}

TEST_CASE("Records stand only where they may") {
    const auto batch_of = [](std::initializer_list<int> bytes) {
        ByteBuffer batch(4);
        for (int byte : bytes)
            batch.push_back(static_cast<std::byte>(byte));
        return batch;
    };
    JournalTables tables;
    const auto error = [&](const ByteBuffer& batch) {
        auto facts = describe_batch(batch, tables);
        REQUIRE_FALSE(facts.has_value());
        return facts.error().message;
    };
    CHECK(error(batch_of({'X'})).find("unknown kind 88") != std::string::npos);
    ByteBuffer commit = batch_of({'C'});
    commit.resize(commit.size() + 24);
    CHECK(error(commit).find("outside of a transaction") != std::string::npos);
    ByteBuffer flags = batch_of({'B'});
    flags.resize(flags.size() + 20);
    flags.push_back(std::byte{4});
    CHECK(error(flags).find("unknown flags") != std::string::npos);
    CHECK(error(batch_of({'I', 9, 0, 0, 0, 0, 0, 0, 0})).find("relation version") !=
          std::string::npos);
}

TEST_CASE("A tuple of another number of columns than its table is an error") {
    BatchWriter writer;
    const RelationRef orders = RelationVersion::make(made_relation(16'400, "orders"));
    transaction(writer, 1000, 7, [&] {
        writer.change(Kind::inserted, orders, made_insert({"1", "a", "b"}));
    });
    JournalTables tables;
    const ByteBuffer batch = writer.take().value().plain;
    CHECK(describe_batch(batch, tables).error().message.find("3 columns, and its table 2") !=
          std::string::npos);
}
