#include <algorithm>
#include <array>

#include "proto/column_layout.h"
#include "proto/journal_columns.h"

namespace walvault {
namespace {

using namespace columns;
using Kind = JournalRecordKind;

// Streams that are smaller share a block with what follows.
constexpr std::size_t kCutBytesMin = 1024;

std::uint64_t bits(WallTime at) {
    return static_cast<std::uint64_t>(at.time_since_epoch().count());
}

void append_difference(ByteBuffer& out, std::uint64_t value, std::uint64_t base) {
    append_varint(out, zigzag(value - base));
}

bool is_change(Kind kind) {
    return kind == Kind::inserted || kind == Kind::updated || kind == Kind::deleted ||
           kind == Kind::row;
}

char code_of(const JournalRecordView& record) {
    if (record.kind == Kind::updated && record.old_kind == 'K') return kUpdateWithKey;
    if (record.kind == Kind::updated && record.old_kind == 'O') return kUpdateWithOld;
    if (record.kind == Kind::deleted && record.old_kind == 'O') return kDeleteWithOld;
    return static_cast<char>(record.kind);
}

// The values of a column in one place of the change: the old row, or the new one.
struct Collected {
    ByteBuffer kinds;
    std::vector<std::string_view> values;
    bool all_text = true;
};

class ColumnWriter {
public:
    explicit ColumnWriter(ByteSpan batch) : batch_(batch) {}

    Result<std::optional<ColumnBatch>> write() {
        WV_TRY(BatchReader reader, BatchReader::open(batch_));
        for (const pb::JournalRelation& relation : reader.relations())
            for (auto& place : columns_.emplace_back())
                place.resize(static_cast<std::size_t>(relation.columns_size()));
        JournalRecordView record;
        for (;;) {
            WV_TRY(bool more, reader.next(record));
            if (!more) break;
            WV_CHECK(take(record, reader.offset()));
        }
        return join(reader);
    }

private:
    Result<> take(const JournalRecordView& record, std::size_t end) {
        streams_[kKinds].push_back(static_cast<std::byte>(code_of(record)));
        if (record.kind == Kind::begin) return take_begin(record), Result<>();
        if (record.kind == Kind::commit) return take_commit(record), Result<>();
        if (is_change(record.kind)) return take_change(record);
        const ByteSpan body = batch_.subspan(record.offset + 1, end - record.offset - 1);
        append_varint(streams_[kOtherLengths], body.size());
        append(streams_[kOthers], body);
        return {};
    }

    void take_begin(const JournalRecordView& record) {
        append_difference(streams_[kBeginLsns], record.commit_lsn.value, last_.lsn);
        append_difference(streams_[kBeginTimes], bits(record.at), last_.at);
        append_difference(streams_[kXids], record.xid, last_.xid);
        streams_[kBeginFlags].push_back(static_cast<std::byte>(record.goes_on ? 1 : 0));
        last_ = {record.commit_lsn.value, bits(record.at), record.xid};
    }

    void take_commit(const JournalRecordView& record) {
        append_difference(streams_[kCommitLsns], record.commit_lsn.value, last_.lsn);
        append_difference(streams_[kEndLsns], record.end_lsn.value, record.commit_lsn.value);
        append_difference(streams_[kCommitTimes], bits(record.at), last_.at);
    }

    Result<> take_change(const JournalRecordView& record) {
        append_varint(streams_[kRelations], record.relation);
        auto& [old_columns, new_columns] = columns_[record.relation];
        if (!record.old_tuple.empty()) WV_CHECK(take_tuple(record.old_tuple, {}, old_columns));
        if (!record.new_tuple.empty())
            WV_CHECK(take_tuple(record.new_tuple, record.old_tuple, new_columns));
        return {};
    }

    static Result<> take_tuple(ByteSpan tuple, ByteSpan old, std::vector<Collected>& columns) {
        TupleReader reader(tuple);
        std::optional<TupleReader> old_reader;
        if (!old.empty()) old_reader.emplace(old);
        for (Collected& column : columns) {
            TupleValue value;
            TupleValue before;
            WV_CHECK(reader.next(value));
            if (old_reader) WV_CHECK(old_reader->next(before));
            take_value(value, old_reader ? &before : nullptr, column);
        }
        return {};
    }

    static void take_value(const TupleValue& value, const TupleValue* before, Collected& column) {
        using Of = TupleValue::Kind;
        const bool has_text = value.kind == Of::text || value.kind == Of::masked;
        const bool is_same = has_text && before != nullptr && before->kind == value.kind &&
                             before->text == value.text;
        const char kind = is_same                    ? kSameAsOld
                          : value.kind == Of::text   ? 't'
                          : value.kind == Of::masked ? 'm'
                          : value.kind == Of::null   ? 'n'
                                                     : 'u';
        column.kinds.push_back(static_cast<std::byte>(kind));
        column.all_text = column.all_text && kind == 't';
        if (has_text && !is_same) column.values.push_back(value.text);
    }

    Result<std::optional<ColumnBatch>> join(const BatchReader& reader) {
        ByteBuffer directory;
        for (const ByteBuffer& stream : streams_)
            add_stream(directory, stream);
        std::vector<ValueColumn> written;
        written.reserve(columns_count());
        for (auto& places : columns_)
            for (auto& columns : places)
                for (Collected& column : columns) {
                    if (column.all_text) column.kinds.clear();
                    ValueColumn& values = written.emplace_back(encode_values(column.values));
                    directory.push_back(static_cast<std::byte>(values.coding));
                    directory.push_back(static_cast<std::byte>(values.form));
                    add_stream(directory, column.kinds);
                    add_stream(directory, values.lengths);
                    add_stream(directory, values.bytes);
                }
        ColumnBatch result;
        append_le(result.plain, kMark);
        append_le(result.plain, static_cast<std::uint32_t>(batch_.size()));
        append_le(result.plain, static_cast<std::uint32_t>(reader.relations().size()));
        for (std::string_view relation : reader.relation_bytes()) {
            append_le(result.plain, static_cast<std::uint32_t>(relation.size()));
            append(result.plain, as_bytes(relation));
        }
        append(result.plain, directory);
        lay_out(result);
        ByteBuffer again;
        if (result.plain.size() >= batch_.size() || !from_columns(result.plain, again) ||
            !std::ranges::equal(again, batch_))
            return std::optional<ColumnBatch>();
        return std::optional(std::move(result));
    }

    std::size_t columns_count() const {
        std::size_t count = 0;
        for (const auto& places : columns_)
            count += places[0].size() + places[1].size();
        return count;
    }

    void add_stream(ByteBuffer& directory, const ByteBuffer& stream) {
        append_varint(directory, stream.size());
        bodies_.push_back(&stream);
    }

    void lay_out(ColumnBatch& result) const {
        std::size_t last_cut = 0;
        for (const ByteBuffer* stream : bodies_) {
            const std::size_t at = result.plain.size();
            if (!stream->empty() && at - last_cut >= kCutBytesMin) {
                result.cuts.push_back(at);
                last_cut = at;
            }
            append(result.plain, *stream);
        }
    }

    ByteSpan batch_;
    std::array<ByteBuffer, kStreamCount> streams_;
    std::vector<std::array<std::vector<Collected>, 2>> columns_;  // by relation version: old, new
    std::vector<const ByteBuffer*> bodies_;
    Transaction last_;
};

}  // namespace

Result<std::optional<ColumnBatch>> to_columns(ByteSpan batch) {
    return ColumnWriter(batch).write();
}

}  // namespace walvault
