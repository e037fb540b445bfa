// Relations and tuples as a server would send them, for tests of the row journal.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proto/journal_format.h"

namespace walvault {

// A table with columns "id" (the primary key) and "note", more of these where asked.
inline pb::JournalRelation made_relation(std::uint32_t oid, const std::string& name,
                                         int columns = 2) {
    pb::JournalRelation relation;
    relation.set_oid(oid);
    relation.set_schema("public");
    relation.set_table(name);
    relation.set_identity(pb::JournalRelation::DEFAULT);
    for (int i = 0; i < columns; ++i) {
        pb::JournalColumn& column = *relation.add_columns();
        column.set_name(i == 0 ? "id" : "note" + (i == 1 ? "" : std::to_string(i)));
        column.set_type_oid(i == 0 ? 23 : 25);
        column.set_typmod(-1);
        column.set_is_identity(i == 0);
        column.set_is_primary_key(i == 0);
        column.set_type_name(i == 0 ? "integer" : "text");
    }
    return relation;
}

// "\x01": unchanged; nothing: null.
using MadeValues = std::vector<std::optional<std::string>>;
inline const std::string kUnchanged = "\x01";

inline void append_tuple(ByteBuffer& out, const MadeValues& values) {
    append_be(out, static_cast<std::uint16_t>(values.size()));
    for (const auto& value : values) {
        if (!value || *value == kUnchanged) {
            out.push_back(static_cast<std::byte>(value ? 'u' : 'n'));
            continue;
        }
        out.push_back(static_cast<std::byte>('t'));
        append_be(out, static_cast<std::uint32_t>(value->size()));
        append(out, as_bytes(*value));
    }
}
inline ByteBuffer made_tuple(const MadeValues& values) {
    ByteBuffer out;
    append_tuple(out, values);
    return out;
}
inline ByteBuffer made_insert(const MadeValues& now) {
    ByteBuffer out{static_cast<std::byte>('N')};
    append_tuple(out, now);
    return out;
}
inline ByteBuffer made_delete(const MadeValues& old, char kind = 'K') {
    ByteBuffer out{static_cast<std::byte>(kind)};
    append_tuple(out, old);
    return out;
}
inline ByteBuffer made_update(const MadeValues& now, const std::optional<MadeValues>& old = {},
                              char kind = 'K') {
    ByteBuffer out;
    if (old) out = made_delete(*old, kind);
    append(out, made_insert(now));
    return out;
}

inline pb::SnapshotTaken made_snapshot(std::uint32_t table_oid, std::uint64_t lsn,
                                       std::int64_t at_us = 0) {
    pb::SnapshotTaken taken;
    taken.set_table_oid(table_oid);
    taken.set_lsn(lsn);
    taken.set_at_us(at_us);
    return taken;
}

inline JournalBegin made_begin(std::uint64_t commit_lsn, Xid xid) {
    return {.commit_lsn = Lsn{commit_lsn},
            .at = WallTime(Micros(1'700'000'000'000'000 + static_cast<std::int64_t>(commit_lsn))),
            .xid = xid};
}

}  // namespace walvault
