#include "proto/journal_format.h"

#include <algorithm>

namespace walvault {
namespace {

using Kind = JournalRecordKind;

WallTime time_from(ByteReader& reader) {
    return WallTime(Micros(static_cast<std::int64_t>(reader.le<std::uint64_t>())));
}
std::string_view text_from(ByteReader& reader) {
    return as_text(reader.bytes(reader.le<std::uint32_t>()));
}
bool is_change(Kind kind) {
    return kind == Kind::inserted || kind == Kind::updated || kind == Kind::deleted;
}
bool has_tuples(Kind kind) { return is_change(kind) || kind == Kind::row; }

tl::unexpected<Error> malformed(std::size_t offset, const std::string& what) {
    return fail(Errc::corrupt,
                "the record at byte " + std::to_string(offset) + " of a batch " + what);
}

// Flags have no bits but those of `known`.
bool read_flags(ByteReader& reader, std::uint8_t known, std::uint8_t& flags) {
    flags = reader.le<std::uint8_t>();
    return (flags & ~known) == 0;
}

}  // namespace

TupleReader::TupleReader(ByteSpan tuple) : reader_(tuple) {
    column_count_ = reader_.be<std::uint16_t>();
}

Result<bool> TupleReader::next(TupleValue& value) {
    if (!reader_.ok()) return fail(Errc::corrupt, "a tuple ends before its columns do");
    if (at_ == column_count_) return false;
    const char kind = static_cast<char>(reader_.be<std::uint8_t>());
    value.text = {};
    if (kind == 'n')
        value.kind = TupleValue::Kind::null;
    else if (kind == 'u')
        value.kind = TupleValue::Kind::unchanged;
    else if (kind == 't' || kind == 'm') {
        value.kind = kind == 't' ? TupleValue::Kind::text : TupleValue::Kind::masked;
        value.text = as_text(reader_.bytes(reader_.be<std::uint32_t>()));
    } else if (reader_.ok())
        return fail(Errc::corrupt, "a value is of unknown kind " +
                                       std::to_string(static_cast<unsigned char>(kind)));
    if (!reader_.ok()) return fail(Errc::corrupt, "a tuple ends before its columns do");
    ++at_;
    return true;
}

Result<std::size_t> TupleReader::measure(ByteSpan bytes, std::size_t column_count) {
    TupleReader tuple(bytes);
    if (tuple.column_count_ != column_count)
        return fail(Errc::corrupt, "a tuple has " + std::to_string(tuple.column_count_) +
                                       " columns, and its table " + std::to_string(column_count));
    TupleValue value;
    for (;;) {
        WV_TRY(bool more, tuple.next(value));
        if (!more) return tuple.reader_.position();
    }
}

Result<std::vector<TupleValue>> TupleReader::read(ByteSpan tuple) {
    TupleReader reader(tuple);
    std::vector<TupleValue> values;
    TupleValue value;
    for (;;) {
        WV_TRY(bool more, reader.next(value));
        if (!more) return values;
        values.push_back(value);
    }
}

Result<BatchReader> BatchReader::open(ByteSpan batch) {
    BatchReader reader(batch);
    ByteReader bytes(batch);
    const auto count = bytes.le<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && bytes.ok(); ++i) {
        const std::string_view relation = text_from(bytes);
        if (!bytes.ok()) break;
        if (!reader.relations_.emplace_back().ParseFromArray(relation.data(),
                                                             static_cast<int>(relation.size())))
            return fail(Errc::corrupt,
                        "relation version " + std::to_string(i) + " of a batch cannot be read");
        reader.relation_bytes_.push_back(relation);
    }
    if (!bytes.ok()) return fail(Errc::corrupt, "a batch ends inside its relation versions");
    reader.at_ = bytes.position();
    return reader;
}

void BatchReader::seek(std::size_t offset, bool inside_transaction) {
    WV_ASSERT(offset <= batch_.size());
    at_ = offset;
    inside_ = inside_transaction;
}

Result<bool> BatchReader::next(JournalRecordView& record) {
    if (at_ == batch_.size()) return false;
    ByteReader reader(batch_.subspan(at_));
    const std::size_t offset = at_;
    record = {};
    record.offset = offset;
    record.kind = static_cast<Kind>(reader.le<std::uint8_t>());
    at_ = batch_.size();
    WV_CHECK(read_record(reader, record));
    if (!reader.ok()) return malformed(offset, "reaches over its end");
    if (record.kind == Kind::begin) inside_ = true;
    if (record.kind == Kind::commit) inside_ = false;
    at_ = offset + reader.position();
    return true;
}

// Where a record may stand.
Result<> BatchReader::require_place(const JournalRecordView& record) const {
    const Kind kind = record.kind == Kind::part ? record.part_of : record.kind;
    const bool anywhere = kind == Kind::message && !record.transactional;
    const bool outside = kind == Kind::begin || kind == Kind::row;
    if (!anywhere && inside_ == outside)
        return malformed(record.offset, outside ? "stands inside of a transaction"
                                                : "stands outside of a transaction");
    return {};
}

Result<> BatchReader::read_record(ByteReader& reader, JournalRecordView& record) const {
    std::uint8_t flags = 0;
    bool known_flags = true;
    switch (record.kind) {
        case Kind::begin:
            record.commit_lsn = Lsn{reader.le<std::uint64_t>()};
            record.at = time_from(reader);
            record.xid = reader.le<std::uint32_t>();
            known_flags = read_flags(reader, 1, flags);
            record.goes_on = flags != 0;
            break;
        case Kind::origin:
            record.lsn = Lsn{reader.le<std::uint64_t>()};
            record.name = text_from(reader);
            break;
        case Kind::inserted:
        case Kind::updated:
        case Kind::deleted:
        case Kind::row:
            record.relation = reader.le<std::uint32_t>();
            record.content = as_bytes(text_from(reader));
            if (!reader.ok()) return {};
            WV_CHECK(read_tuples(record.content, record));
            break;
        case Kind::truncated: {
            known_flags = read_flags(reader, 3, flags);
            record.cascade = (flags & 1) != 0;
            record.restart_identity = (flags & 2) != 0;
            const auto count = reader.le<std::uint32_t>();
            for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
                record.relations.push_back(reader.le<std::uint32_t>());
                if (reader.ok() && record.relations.back() >= relations_.size())
                    return malformed(record.offset, "names a relation version that is not there");
            }
            break;
        }
        case Kind::message:
            return read_message(reader, record);
        case Kind::commit:
            record.commit_lsn = Lsn{reader.le<std::uint64_t>()};
            record.end_lsn = Lsn{reader.le<std::uint64_t>()};
            record.at = time_from(reader);
            break;
        case Kind::part:
            return read_part(reader, record);
        default:
            return malformed(record.offset, "is of unknown kind " +
                                                std::to_string(static_cast<unsigned>(record.kind)));
    }
    if (!known_flags) return malformed(record.offset, "has unknown flags");
    return reader.ok() ? require_place(record) : Result<>{};
}

Result<> BatchReader::read_message(ByteReader& reader, JournalRecordView& record) const {
    std::uint8_t flags = 0;
    if (!read_flags(reader, 1, flags)) return malformed(record.offset, "has unknown flags");
    record.transactional = flags != 0;
    record.lsn = Lsn{reader.le<std::uint64_t>()};
    record.name = text_from(reader);
    record.content = as_bytes(text_from(reader));
    return reader.ok() ? require_place(record) : Result<>{};
}

Result<> BatchReader::read_part(ByteReader& reader, JournalRecordView& record) const {
    record.part_of = static_cast<Kind>(reader.le<std::uint8_t>());
    record.relation = reader.le<std::uint32_t>();
    record.total_bytes = reader.le<std::uint64_t>();
    record.part_offset = reader.le<std::uint64_t>();
    record.content = as_bytes(text_from(reader));
    if (!reader.ok()) return {};
    if (has_tuples(record.part_of) ? record.relation >= relations_.size()
                                   : record.part_of != Kind::message || record.relation != 0)
        return malformed(record.offset, "is a part of nothing that is known");
    if (record.content.empty() || record.part_offset >= record.total_bytes ||
        record.content.size() > record.total_bytes - record.part_offset)
        return malformed(record.offset, "is a part that lies outside of its whole");
    // Whether a message is transactional is not known before it is whole.
    return record.part_of == Kind::message ? Result<>{} : require_place(record);
}

Result<> BatchReader::read_tuples(ByteSpan body, JournalRecordView& record) const {
    if (record.relation >= relations_.size())
        return malformed(record.offset, "names a relation version that is not there");
    const auto columns = static_cast<std::size_t>(relations_[record.relation].columns_size());
    const auto take = [&](ByteSpan& tuple) -> Result<> {
        auto bytes = TupleReader::measure(body, columns);
        if (!bytes) return malformed(record.offset, "is not a change: " + bytes.error().message);
        tuple = body.first(*bytes);
        body = body.subspan(*bytes);
        return {};
    };
    const auto mark = [&](std::string_view marks) -> char {
        if (body.empty()) return 0;
        const char found = static_cast<char>(body[0]);
        if (marks.find(found) == std::string_view::npos) return 0;
        body = body.subspan(1);
        return found;
    };
    if (record.kind == Kind::updated || record.kind == Kind::deleted) record.old_kind = mark("KO");
    if (record.old_kind != 0) WV_CHECK(take(record.old_tuple));
    if (record.kind == Kind::deleted && record.old_kind == 0)
        return malformed(record.offset, "deletes a row and does not say which");
    if (record.kind == Kind::inserted || record.kind == Kind::updated) {
        if (mark("N") == 0) return malformed(record.offset, "has no new row");
        WV_CHECK(take(record.new_tuple));
    }
    if (record.kind == Kind::row) WV_CHECK(take(record.new_tuple));
    if (!body.empty())
        return malformed(record.offset,
                         "has " + std::to_string(body.size()) + " bytes more than its tuples");
    return {};
}

Result<JournalRecordView> BatchReader::read_joined(const JournalRecordView& part,
                                                   ByteSpan body) const {
    JournalRecordView record;
    record.kind = part.part_of;
    record.offset = part.offset;
    record.relation = part.relation;
    record.content = body;
    if (record.kind != Kind::message) {
        WV_CHECK(read_tuples(body, record));
        return record;
    }
    ByteReader reader(body);
    WV_CHECK(read_message(reader, record));
    if (!reader.ok() || reader.remaining() > 0)
        return malformed(record.offset, "is the last part of a message that is none");
    return record;
}

Result<bool> PartJoiner::add(const JournalRecordView& part) {
    if (is_whole_) body_.clear();
    is_whole_ = false;
    if (part.part_offset != body_.size() ||
        (part.part_offset != 0 && (part.total_bytes != total_bytes_ || part.part_of != part_of_)))
        return malformed(part.offset, "is a part that does not follow the one before it");
    total_bytes_ = part.total_bytes;
    part_of_ = part.part_of;
    append(body_, part.content);
    is_whole_ = part.is_last_part();
    return is_whole_;
}

}  // namespace walvault
