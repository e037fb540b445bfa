#include <algorithm>

#include "proto/journal_format.h"

namespace walvault {
namespace {
using Kind = JournalRecordKind;
}  // namespace

std::uint32_t JournalTables::number_of(const pb::JournalRelation& relation) {
    return number_of(relation.oid(), relation.schema(), relation.table());
}
std::uint32_t JournalTables::number_of(const pb::JournalTable& table) {
    return number_of(table.oid(), table.schema(), table.name());
}

std::uint32_t JournalTables::number_of(std::uint32_t oid, const std::string& schema,
                                       const std::string& name) {
    auto [known, is_new] = by_oid_.try_emplace(oid, static_cast<std::uint32_t>(tables_.size()));
    if (is_new) tables_.emplace_back().set_oid(oid);
    pb::JournalTable& table = tables_[known->second];
    if (table.schema() != schema) table.set_schema(schema);
    if (table.name() != name) table.set_name(name);
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
                facts_.frame.set_begins_row(!record.is_last_part());
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
