#include "proto/journal_keys.h"

#include <algorithm>

#include "proto/varint.h"

namespace walvault {
namespace {

constexpr std::uint64_t kHashMax = ~std::uint32_t{0};

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

EncodedKeyBlock encode_key_block(std::span<const KeyPlace> places) {
    EncodedKeyBlock block;
    ByteBuffer frames;
    append_varint(block.plain, places.size());
    KeyPlace last{};
    for (const KeyPlace& place : places) {
        append_varint(block.plain, place.hash - last.hash);
        const bool goes_on = place.hash == last.hash;
        append_varint(frames, place.frame_number - (goes_on ? last.frame_number : 0));
        last = place;
    }
    block.cut = block.plain.size();
    append(block.plain, frames);
    return block;
}

Result<std::vector<KeyPlace>> decode_key_block(ByteSpan block) {
    const auto unreadable = [] { return fail(Errc::corrupt, "a key block cannot be read"); };
    std::vector<KeyPlace> places;
    VarintReader reader(block);
    std::uint64_t count = 0;
    if (!reader.next(count) || count > block.size()) return unreadable();
    places.resize(count);
    std::uint64_t hash = 0;
    for (KeyPlace& place : places) {
        std::uint64_t step = 0;
        if (!reader.next(step) || step > kHashMax - hash) return unreadable();
        hash += step;
        place.hash = static_cast<std::uint32_t>(hash);
    }
    KeyPlace last{};
    for (KeyPlace& place : places) {
        const std::uint64_t base = place.hash == last.hash ? last.frame_number : 0;
        std::uint64_t step = 0;
        if (!reader.next(step) || step > kHashMax - base) return unreadable();
        place.frame_number = static_cast<std::uint32_t>(base + step);
        if (&place != &places.front() && place <= last)
            return fail(Errc::corrupt, "a key block is not sorted");
        last = place;
    }
    if (!reader.at_end()) return unreadable();
    return places;
}

}  // namespace walvault
