#include "agent/journal_values.h"

#include "proto/journal_keys.h"

#include <algorithm>
#include <charconv>

namespace walvault::agent {
namespace {

using Kind = RowValue::Kind;

Kind kind_of(TupleValue::Kind kind) {
    switch (kind) {
        case TupleValue::Kind::null:
            return Kind::null;
        case TupleValue::Kind::unchanged:
            return Kind::unchanged;
        case TupleValue::Kind::text:
            return Kind::text;
        case TupleValue::Kind::masked:
            return Kind::masked;
    }
    return Kind::unknown;
}

// int2, int4, int8, oid, as pg_type numbers them for good.
bool is_integer(std::uint32_t type) { return type == 21 || type == 23 || type == 20 || type == 26; }

std::optional<std::int64_t> integer_of(std::string_view text) {
    std::int64_t value = 0;
    auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Precision and scale as a typmod of numeric has them, less the bytes of a length word.
constexpr std::int32_t kTypmodHead = 4;

// Whether PostgreSQL's own cast leaves a value's text as it is. Types by their numbers, which are
// fixed: int2, int4, int8, text, varchar, numeric.
bool keeps_text(const pb::JournalColumn& from, const pb::JournalColumn& to) {
    constexpr std::uint32_t kInt2 = 21, kInt4 = 23, kInt8 = 20;
    constexpr std::uint32_t kText = 25, kVarchar = 1043, kNumeric = 1700;
    const std::uint32_t before = from.type_oid(), now = to.type_oid();
    if (before == now && from.typmod() == to.typmod()) return true;
    if (now == kInt8 && (before == kInt2 || before == kInt4)) return true;
    if (now == kInt4 && before == kInt2) return true;
    if (before == kText || before == kVarchar) {
        if (now == kText || (now == kVarchar && to.typmod() == -1)) return true;
        return now == kVarchar && before == kVarchar && from.typmod() != -1 &&
               to.typmod() >= from.typmod();
    }
    if (before != kNumeric || now != kNumeric) return false;
    if (to.typmod() == -1) return true;
    if (from.typmod() == -1) return false;
    const std::int32_t precisions = from.typmod() - kTypmodHead, wanted = to.typmod() - kTypmodHead;
    return (precisions & 0xFFFF) == (wanted & 0xFFFF) && precisions >> 16 <= wanted >> 16;
}

// A byte that says what follows sorts first; text ends with 0 0, and a 0 in it is 0 FF: no key is
// the beginning of another.
void append_sortable(std::string& out, const RowValue& value, std::uint32_t type) {
    if (value.kind == Kind::null) {
        out += '\x03';  // PostgreSQL sorts NULL last
        return;
    }
    const auto integer = is_integer(type) && value.kind == Kind::text
                             ? integer_of(value.text)
                             : std::optional<std::int64_t>{};
    if (integer) {
        out += '\x01';
        auto shifted = static_cast<std::uint64_t>(*integer) ^ (1ull << 63);
        for (int bits = 56; bits >= 0; bits -= 8)
            out += static_cast<char>((shifted >> bits) & 0xFF);
        return;
    }
    out += '\x02';
    for (char c : value.text) {
        out += c;
        if (c == '\0') out += '\xFF';
    }
    out.append(2, '\0');
}

}  // namespace

Result<Row> read_row(ByteSpan tuple) {
    WV_TRY(auto values, TupleReader::read(tuple));
    Row row;
    row.reserve(values.size());
    for (const TupleValue& value : values)
        row.push_back({kind_of(value.kind), std::string(value.text)});
    return row;
}

void resolve_unchanged(Row& now, const Row& before) {
    for (std::size_t i = 0; i < now.size(); ++i)
        if (now[i].kind == Kind::unchanged)
            now[i] = i < before.size() ? before[i] : RowValue{Kind::unknown};
}

void fill_unknown(Row& row, const Row& other) {
    for (std::size_t i = 0; i < row.size() && i < other.size(); ++i)
        if (row[i].kind == Kind::unknown || row[i].kind == Kind::unchanged) row[i] = other[i];
}

Result<RowChange> read_change(const storage::JournalChange& change) {
    RowChange read;
    const pb::JournalRelation& relation = *change.relation;
    if (change.old_kind != 0) {
        WV_TRY(read.before, read_row(change.old_tuple));
        // Columns that are not of the key are sent as NULL, which they need not have been.
        for (std::size_t i = 0; change.old_kind == 'K' && i < read.before.size(); ++i)
            if (!relation.columns(static_cast<int>(i)).is_identity())
                read.before[i] = RowValue{Kind::unknown};
        for (RowValue& value : read.before)
            if (value.kind == Kind::unchanged) value = RowValue{Kind::unknown};
    }
    if (change.kind == JournalRecordKind::deleted) return read;
    WV_TRY(read.now, read_row(change.new_tuple));
    if (change.kind != JournalRecordKind::updated) return read;
    if (read.before.empty()) {
        // Only an update that leaves the key as it was is sent without the old row.
        read.before.resize(read.now.size());
        for (std::uint32_t column : key_columns(relation))
            if (read.now[column].kind != Kind::unchanged) read.before[column] = read.now[column];
    }
    for (std::size_t i = 0; i < read.now.size() && i < read.before.size(); ++i)
        if (read.now[i].kind == Kind::unchanged && read.before[i].kind != Kind::unknown)
            read.now[i] = read.before[i];
    return read;
}

Row as_in(const Row& row, const pb::JournalRelation& from, const pb::JournalRelation& to) {
    Row result(static_cast<std::size_t>(to.columns_size()));
    for (int i = 0; i < to.columns_size(); ++i) {
        const auto& columns = from.columns();
        auto found = std::find_if(columns.begin(), columns.end(), [&](const auto& column) {
            return column.name() == to.columns(i).name();
        });
        if (found == columns.end() || !keeps_text(*found, to.columns(i))) continue;
        const auto at = static_cast<std::size_t>(found - columns.begin());
        if (at < row.size()) result[static_cast<std::size_t>(i)] = row[at];
    }
    return result;
}

bool is_insert_only(const pb::JournalRelation& relation) {
    const auto& columns = relation.columns();
    auto any = [&](auto&& test) { return std::any_of(columns.begin(), columns.end(), test); };
    switch (relation.identity()) {
        case pb::JournalRelation::FULL:
            return false;
        case pb::JournalRelation::DEFAULT:
            return !any([](const auto& column) { return column.is_primary_key(); });
        case pb::JournalRelation::INDEX:
            return !any([](const auto& column) { return column.is_identity(); });
        default:
            return true;
    }
}

bool has_key(const pb::JournalRelation& relation) { return !key_columns(relation).empty(); }

std::vector<std::string> key_names(const pb::JournalRelation& relation) {
    std::vector<std::string> names;
    for (std::uint32_t column : key_columns(relation))
        names.push_back(relation.columns(static_cast<int>(column)).name());
    return names;
}

std::optional<std::string> sortable_key(const pb::JournalRelation& relation, const Row& row) {
    std::vector<std::uint32_t> columns = key_columns(relation);
    if (columns.empty())
        for (std::uint32_t i = 0; i < row.size(); ++i)
            columns.push_back(i);
    std::string key;
    for (std::uint32_t column : columns) {
        if (column >= row.size()) return std::nullopt;
        const RowValue& value = row[column];
        if (!value.is_known() && value.kind != Kind::masked) return std::nullopt;
        append_sortable(key, value, relation.columns(static_cast<int>(column)).type_oid());
    }
    return key;
}

std::string pack_row(const Row& row) {
    ByteBuffer out;
    for (const RowValue& value : row) {
        out.push_back(static_cast<std::byte>(value.kind));
        append_le(out, static_cast<std::uint32_t>(value.text.size()));
        append(out, as_bytes(value.text));
    }
    return std::string(as_text(out));
}

Result<Row> unpack_row(std::string_view bytes) {
    Row row;
    ByteReader reader(as_bytes(bytes));
    while (reader.remaining() > 0) {
        const auto kind = reader.le<std::uint8_t>();
        const auto length = reader.le<std::uint32_t>();
        const ByteSpan text = reader.bytes(length);
        if (!reader.ok() || kind > static_cast<std::uint8_t>(Kind::masked))
            return fail(Errc::corrupt, "a row that was put aside does not read back");
        row.push_back({static_cast<Kind>(kind), std::string(as_text(text))});
    }
    return row;
}

}  // namespace walvault::agent
