#include "proto/journal_keys.h"

#include <algorithm>

namespace walvault {
namespace {

// The first `count` values.
Result<std::vector<TupleValue>> first_values(ByteSpan tuple, std::size_t count) {
    std::vector<TupleValue> values;
    if (tuple.empty()) return values;
    TupleReader reader(tuple);
    TupleValue value;
    while (values.size() < count) {
        WV_TRY(bool more, reader.next(value));
        if (!more) break;
        values.push_back(value);
    }
    return values;
}

// False where a column is not told. `old` makes good for what the new tuple leaves out as
// unchanged.
Result<bool> append_key(ByteBuffer& key, std::uint32_t table_oid,
                        const std::vector<std::uint32_t>& columns, ByteSpan tuple, ByteSpan old) {
    const std::size_t count = *std::ranges::max_element(columns) + 1;
    WV_TRY(auto values, first_values(tuple, count));
    WV_TRY(auto old_values, first_values(old, count));
    append_le(key, table_oid);
    for (std::uint32_t column : columns) {
        TupleValue value = column < values.size() ? values[column] : TupleValue{};
        if (value.kind == TupleValue::Kind::unchanged && column < old_values.size())
            value = old_values[column];
        if (value.kind != TupleValue::Kind::text && value.kind != TupleValue::Kind::masked)
            return false;
        append_le(key, static_cast<std::uint32_t>(value.text.size()));
        append(key, as_bytes(value.text));
    }
    return true;
}

void append_varint(ByteBuffer& out, std::uint32_t value) {
    for (; value >= 0x80; value >>= 7)
        out.push_back(static_cast<std::byte>(value | 0x80));
    out.push_back(static_cast<std::byte>(value));
}

// False for one of more than 32 bits.
bool read_varint(ByteReader& reader, std::uint32_t& value) {
    std::uint64_t sum = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        const auto byte = reader.le<std::uint8_t>();
        sum |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if ((byte & 0x80) != 0) continue;
        value = static_cast<std::uint32_t>(sum);
        return sum <= ~std::uint32_t{0};
    }
    return false;
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

Result<> each_journal_key(std::uint32_t table_oid, const std::vector<std::uint32_t>& columns,
                          const JournalRecordView& record,
                          const std::function<void(ByteSpan)>& sink) {
    if (columns.empty()) return {};
    ByteBuffer before;
    if (!record.old_tuple.empty()) {
        WV_TRY(bool known, append_key(before, table_oid, columns, record.old_tuple, {}));
        if (!known) before.clear();
        if (known) sink(before);
    }
    if (!record.new_tuple.empty()) {
        ByteBuffer now;
        WV_TRY(bool known, append_key(now, table_oid, columns, record.new_tuple, record.old_tuple));
        if (known && now != before) sink(now);
    }
    return {};
}

ByteBuffer encode_key_block(std::span<const KeyPlace> places) {
    ByteBuffer block;
    std::uint32_t last = 0;
    for (const KeyPlace& place : places) {
        append_varint(block, place.hash - last);
        append_varint(block, place.frame_number);
        last = place.hash;
    }
    return block;
}

Result<std::vector<KeyPlace>> decode_key_block(ByteSpan block) {
    std::vector<KeyPlace> places;
    ByteReader reader(block);
    std::uint64_t hash = 0;
    while (reader.ok() && reader.remaining() > 0) {
        std::uint32_t step = 0;
        std::uint32_t frame = 0;
        if (!read_varint(reader, step) || !read_varint(reader, frame) || !reader.ok())
            return fail(Errc::corrupt, "a key block cannot be read");
        hash += step;
        const KeyPlace place{static_cast<std::uint32_t>(hash), frame};
        if (hash > ~std::uint32_t{0} || (!places.empty() && place <= places.back()))
            return fail(Errc::corrupt, "a key block is not sorted");
        places.push_back(place);
    }
    return places;
}

}  // namespace walvault
