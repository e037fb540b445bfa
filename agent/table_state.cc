#include "agent/table_state.h"

#include <algorithm>

#include "agent/journal_text.h"
#include "agent/render.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

void append_number(std::string& out, std::uint32_t number) {
    for (int bits = 24; bits >= 0; bits -= 8)
        out += static_cast<char>((number >> bits) & 0xFF);
}

void append_column(std::string& scheme, const pb::JournalColumn& column) {
    scheme += column.name() + '\0' + std::to_string(column.type_oid()) + ' ' +
              std::to_string(column.typmod()) + '\0';
}

// What makes the key, so that a change of it is seen.
std::string key_scheme(const pb::JournalRelation& relation) {
    std::string scheme;
    for (std::uint32_t column : key_columns(relation)) {
        const auto& each = relation.columns(static_cast<int>(column));
        append_column(scheme, each);
    }
    // Without a key the whole row is one: all its columns count.
    if (scheme.empty())
        for (const auto& each : relation.columns())
            append_column(scheme, each);
    return scheme;
}

// Columns of a key that only got other names. One that was dropped leaves its place to the columns
// behind it, and a new one comes last: where a column behind the key stands under its name where it
// stood, no column of the key is another one.
bool is_renamed_key(const pb::JournalRelation& before, const pb::JournalRelation& now) {
    const std::vector<std::uint32_t> key = key_columns(now);
    if (key.empty() || key_columns(before) != key) return false;
    if (before.columns_size() != now.columns_size()) return false;
    const std::vector<std::string> names = key_names(before);
    for (int i = 0; i < now.columns_size(); ++i) {
        const auto& old_column = before.columns(i);
        const auto& column = now.columns(i);
        if (old_column.type_oid() != column.type_oid() || old_column.typmod() != column.typmod())
            return false;
        if (old_column.name() == column.name()) continue;
        // Of the others none may have another name, and no column of the key that of another.
        if (std::find(key.begin(), key.end(), static_cast<std::uint32_t>(i)) == key.end() ||
            std::find(names.begin(), names.end(), column.name()) != names.end())
            return false;
    }
    return std::ranges::max(key) + 1 < static_cast<std::uint32_t>(now.columns_size());
}

}  // namespace

TableState::TableState(storage::ScratchRows& rows, std::uint32_t table_oid) : rows_(rows) {
    append_number(prefix_, table_oid);
}

std::string TableState::place(const std::string& key) const {
    std::string place = "r" + prefix_;
    append_number(place, generation_);
    return place + key;
}

// By the names of the key's columns: values of another key do not mean the same row.
std::string TableState::wanted_place(const pb::JournalRelation& relation,
                                     const std::string& key) const {
    std::string place = "w" + prefix_;
    for (const std::string& name : key_names(relation))
        place += name + '\0';
    return place + '\0' + key;
}

Result<> TableState::want(const pb::JournalRelation& relation, const Row& row) {
    auto key = sortable_key(relation, row);
    if (!key) return {};
    return rows_.put(wanted_place(relation, *key), "");
}

Result<bool> TableState::is_wanted(const pb::JournalRelation& relation, const Row& row) const {
    auto key = sortable_key(relation, row);
    if (!key) return false;
    return rows_.has(wanted_place(relation, *key));
}

std::string TableState::pack(const Stored& stored) {
    ByteBuffer head;
    append_le(head, stored.version);
    append_le(head, stored.count);
    return std::string(as_text(head)) + pack_row(stored.row);
}

Result<TableState::Stored> TableState::unpack(std::string_view bytes) {
    ByteReader reader(as_bytes(bytes));
    Stored stored;
    stored.version = reader.le<std::uint32_t>();
    stored.count = reader.le<std::uint64_t>();
    if (!reader.ok()) return fail(Errc::corrupt, "a row that was put aside does not read back");
    WV_TRY(stored.row, unpack_row(bytes.substr(reader.position())));
    return stored;
}

Result<std::optional<TableState::Stored>> TableState::find(const std::string& key) const {
    WV_TRY(auto bytes, rows_.get(place(key)));
    if (!bytes) return std::optional<Stored>{};
    WV_TRY(Stored stored, unpack(*bytes));
    return std::optional<Stored>(std::move(stored));
}

Result<> TableState::put(const std::string& key, const Row& row, std::uint64_t count) {
    return rows_.put(place(key), pack({row, version_, count}));
}

Result<> TableState::enter(const pb::JournalRelation& relation) {
    std::string bytes = relation.SerializeAsString();
    if (version_ != 0 && bytes == entered_bytes_) return {};
    const bool is_first = version_ == 0;
    const bool same_key = is_first || key_scheme(versions_.at(version_)) == key_scheme(relation) ||
                          is_renamed_key(versions_.at(version_), relation);
    if (!same_key) WV_CHECK(rekey(relation));
    auto [found, is_new] =
        version_numbers_.emplace(bytes, static_cast<std::uint32_t>(version_numbers_.size()) + 1);
    if (is_new) versions_.emplace(found->second, relation);
    version_ = found->second;
    entered_bytes_ = std::move(bytes);
    return {};
}

// The key has other columns from here on: rows stand under their new keys.
Result<> TableState::rekey(const pb::JournalRelation& relation) {
    std::string old_place = "r" + prefix_;
    append_number(old_place, generation_);
    ++generation_;
    const auto move = [&](std::string_view, std::string_view bytes) -> Result<bool> {
        WV_TRY(Stored stored, unpack(bytes));
        const Row row = as_in(stored.row, versions_.at(stored.version), relation);
        auto key = sortable_key(relation, row);
        if (!key)
            return fail(Errc::unsupported,
                        "the key of " + printable(table_text(relation.schema(), relation.table())) +
                            " was changed to columns that the rows before do not tell",
                        "ask for a moment before that, or one behind the next snapshot");
        WV_TRY(auto there, find(*key));
        WV_CHECK(rows_.put(place(*key), pack({stored.row, stored.version,
                                              stored.count + (there ? there->count : 0)})));
        return true;
    };
    WV_CHECK(rows_.each(old_place, move));
    return rows_.clear(old_place);
}

Result<> TableState::add(const pb::JournalRelation& relation, const Row& row) {
    auto key = sortable_key(relation, row);
    if (!key)
        return fail(Errc::corrupt, "a row of " +
                                       printable(table_text(relation.schema(), relation.table())) +
                                       " does not tell its key");
    if (only_wanted_) {
        WV_TRY(const bool wanted, rows_.has(wanted_place(relation, *key)));
        if (!wanted) return {};
    }
    if (has_key(relation)) return put(*key, row, 1);
    WV_TRY(auto there, find(*key));
    return put(*key, row, there ? there->count + 1 : 1);
}

Result<> TableState::take(const pb::JournalRelation& relation, const Row& row) {
    auto key = sortable_key(relation, row);
    if (!key) return {};
    if (has_key(relation)) return rows_.remove(place(*key));
    WV_TRY(auto there, find(*key));
    if (!there) return {};
    if (there->count <= 1) return rows_.remove(place(*key));
    return put(*key, there->row, there->count - 1);
}

Result<> TableState::load(const pb::JournalRelation& relation, ByteSpan tuple) {
    if (tuple.empty()) return enter(relation);
    WV_TRY(const Row row, read_row(tuple));
    return load_row(relation, row);
}

Result<> TableState::load_row(const pb::JournalRelation& relation, const Row& row) {
    WV_CHECK(enter(relation));
    return add(relation, row);
}

Result<> TableState::apply(const storage::JournalChange& change) {
    if (change.kind == JournalRecordKind::truncated) {
        std::string all = "r" + prefix_;
        append_number(all, generation_);
        return rows_.clear(all);
    }
    return apply_resolved(change).map([](const RowChange&) {});
}

Result<RowChange> TableState::apply_resolved(const storage::JournalChange& change) {
    const pb::JournalRelation& relation = *change.relation;
    WV_CHECK(enter(relation));
    WV_TRY(RowChange read, read_change(change));
    if (change.kind != JournalRecordKind::inserted) {
        if (auto key = sortable_key(relation, read.before); key && has_key(relation)) {
            WV_TRY(auto there, find(*key));
            if (there)
                fill_unknown(read.before,
                             as_in(there->row, versions_.at(there->version), relation));
        }
        WV_CHECK(take(relation, read.before));
    }
    resolve_unchanged(read.now, read.before);
    if (change.kind != JournalRecordKind::deleted) WV_CHECK(add(relation, read.now));
    return read;
}

const pb::JournalRelation* TableState::relation() const {
    auto found = versions_.find(version_);
    return found == versions_.end() ? nullptr : &found->second;
}

Result<> TableState::each(const std::function<Result<bool>(const Row&)>& sink) const {
    if (version_ == 0) return {};
    const pb::JournalRelation& now = versions_.at(version_);
    std::string all = "r" + prefix_;
    append_number(all, generation_);
    return rows_.each(all, [&](std::string_view, std::string_view bytes) -> Result<bool> {
        WV_TRY(Stored stored, unpack(bytes));
        const Row row = stored.version == version_
                            ? std::move(stored.row)
                            : as_in(stored.row, versions_.at(stored.version), now);
        for (std::uint64_t i = 0; i < stored.count; ++i) {
            WV_TRY(const bool goes_on, sink(row));
            if (!goes_on) return false;
        }
        return true;
    });
}

}  // namespace walvault::agent
