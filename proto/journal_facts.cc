// What a batch says of itself: counts for its frame's entry, and the keys of its rows.
#include <algorithm>

#include "proto/journal_format.h"

namespace walvault {
namespace {

using Kind = JournalRecordKind;

// Values of the key's columns; nothing where one of them is not told. `old` makes good for what the
// new tuple leaves out as unchanged.
Result<std::optional<std::vector<std::string_view>>> key_of(
    const std::vector<std::uint32_t>& columns, ByteSpan tuple, ByteSpan old) {
    WV_TRY(auto values, TupleReader::read(tuple));
    std::vector<TupleValue> old_values;
    if (!old.empty()) {
        WV_TRY(old_values, TupleReader::read(old));
    }
    std::vector<std::string_view> key;
    for (std::uint32_t column : columns) {
        TupleValue value = column < values.size() ? values[column] : TupleValue{};
        if (value.kind == TupleValue::Kind::unchanged && column < old_values.size())
            value = old_values[column];
        if (value.kind != TupleValue::Kind::text && value.kind != TupleValue::Kind::masked)
            return std::optional<std::vector<std::string_view>>{};
        key.push_back(value.text);
    }
    return std::optional<std::vector<std::string_view>>(std::move(key));
}

}  // namespace

std::vector<std::uint32_t> key_columns(const pb::JournalRelation& relation) {
    const bool by_identity = relation.identity() == pb::JournalRelation::INDEX;
    std::vector<std::uint32_t> columns;
    for (int i = 0; i < relation.columns_size(); ++i) {
        const pb::JournalColumn& column = relation.columns(i);
        if (by_identity ? column.is_identity() : column.is_primary_key())
            columns.push_back(static_cast<std::uint32_t>(i));
    }
    return columns;
}

ByteBuffer encode_journal_key(std::uint32_t table_oid,
                              const std::vector<std::string_view>& columns) {
    ByteBuffer key;
    append_le(key, table_oid);
    for (std::string_view column : columns) {
        append_le(key, static_cast<std::uint32_t>(column.size()));
        append(key, as_bytes(column));
    }
    return key;
}

Result<> each_journal_key(const pb::JournalRelation& relation, const JournalRecordView& record,
                          const std::function<void(ByteSpan)>& sink) {
    const std::vector<std::uint32_t> columns = key_columns(relation);
    if (columns.empty()) return {};
    ByteBuffer before;
    if (!record.old_tuple.empty()) {
        WV_TRY(auto key, key_of(columns, record.old_tuple, {}));
        if (key) before = encode_journal_key(relation.oid(), *key);
        if (key) sink(before);
    }
    if (!record.new_tuple.empty()) {
        WV_TRY(auto key, key_of(columns, record.new_tuple, record.old_tuple));
        if (!key) return {};
        const ByteBuffer now = encode_journal_key(relation.oid(), *key);
        if (now != before) sink(now);
    }
    return {};
}

std::uint32_t JournalTables::number_of(const pb::JournalRelation& relation) {
    auto [known, is_new] =
        by_oid_.try_emplace(relation.oid(), static_cast<std::uint32_t>(tables_.size()));
    if (is_new) tables_.emplace_back().set_oid(relation.oid());
    pb::JournalTable& table = tables_[known->second];
    if (table.schema() != relation.schema()) table.set_schema(relation.schema());
    if (table.name() != relation.table()) table.set_name(relation.table());
    return known->second;
}

namespace {

class Describing {
public:
    explicit Describing(JournalTables& tables) : tables_(tables) {}

    void add(const BatchReader& reader, const JournalRecordView& record) {
        switch (record.kind) {
            case Kind::begin:
                xid_ = record.xid;
                rows_ = 0;
                break;
            case Kind::commit:
                add_commit(record);
                break;
            case Kind::truncated:
                for (std::uint32_t relation : record.relations)
                    count(reader, relation, Kind::truncated);
                break;
            case Kind::part:
                if (record.is_last_part()) count(reader, record.relation, record.part_of);
                break;
            default:
                count(reader, record.relation, record.kind);
        }
    }

    BatchFacts finish(bool goes_on, bool open) {
        facts_.frame.set_goes_on(goes_on);
        facts_.frame.set_open(open);
        for (const auto& [number, counted] : counts_)
            *facts_.frame.add_counts() = counted;
        return std::move(facts_);
    }

private:
    void count(const BatchReader& reader, std::uint32_t relation, Kind kind) {
        if (kind == Kind::message) facts_.frame.set_message_count(facts_.frame.message_count() + 1);
        if (kind == Kind::origin || kind == Kind::message) return;
        const std::uint32_t number = tables_.number_of(reader.relations()[relation]);
        pb::JournalCount& counted = counts_[number];
        counted.set_table(number);
        if (kind == Kind::inserted) counted.set_inserted(counted.inserted() + 1);
        if (kind == Kind::updated) counted.set_updated(counted.updated() + 1);
        if (kind == Kind::deleted) counted.set_deleted(counted.deleted() + 1);
        if (kind == Kind::truncated) counted.set_truncated(counted.truncated() + 1);
        if (kind == Kind::row) counted.set_rows(counted.rows() + 1);
        if (kind == Kind::truncated || kind == Kind::row) return;
        facts_.frame.set_largest_rows(std::max(facts_.frame.largest_rows(), ++rows_));
    }

    void add_commit(const JournalRecordView& record) {
        facts_.frame.set_end_lsn(record.end_lsn.value);
        pb::WalSummary& summary = facts_.summary;
        const std::int64_t at_us = record.at.time_since_epoch().count();
        const bool is_first = summary.commit_count() == 0;
        summary.set_commit_count(summary.commit_count() + 1);
        summary.set_first_at_us(is_first ? at_us : std::min(summary.first_at_us(), at_us));
        summary.set_last_at_us(is_first ? at_us : std::max(summary.last_at_us(), at_us));
        summary.set_min_xid(is_first ? xid_ : std::min(summary.min_xid(), xid_));
        summary.set_max_xid(is_first ? xid_ : std::max(summary.max_xid(), xid_));
    }

    JournalTables& tables_;
    std::map<std::uint32_t, pb::JournalCount> counts_;
    BatchFacts facts_;
    Xid xid_ = 0;
    std::uint64_t rows_ = 0;  // of the transaction, in this batch
};

}  // namespace

Result<BatchFacts> describe_batch(ByteSpan batch, JournalTables& tables) {
    WV_TRY(BatchReader reader, BatchReader::open(batch));
    for (const pb::JournalRelation& relation : reader.relations())
        tables.number_of(relation);
    Describing facts(tables);
    JournalRecordView record;
    bool goes_on = false;
    Lsn end;
    for (bool is_first = true;; is_first = false) {
        WV_TRY(bool more, reader.next(record));
        if (!more) break;
        if (record.goes_on && !is_first)
            return fail(Errc::corrupt, "a batch goes on with a transaction that is not there");
        if (record.goes_on) goes_on = true;
        if (record.kind == Kind::commit && record.end_lsn <= end)
            return fail(Errc::corrupt, "a transaction ends at " + to_string(record.end_lsn) +
                                           ", not behind the one before it");
        if (record.kind == Kind::commit) end = record.end_lsn;
        facts.add(reader, record);
    }
    return facts.finish(goes_on, reader.is_inside_transaction());
}

}  // namespace walvault
