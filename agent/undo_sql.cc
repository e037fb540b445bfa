#include "agent/undo_sql.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/journal_text.h"
#include "agent/render.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

using Kind = RowValue::Kind;

// Types of pg_catalog whose "=" says that two values are the same, by their numbers, which are
// fixed. Others, as json, point, or a domain over these, have no "=" or one that means less.
constexpr std::array<std::uint32_t, 31> kComparable{
    16,  17,  18,   19,   20,   21,   23,   24,   25,   26,   28,   650,  700,  701,  774, 790,
    829, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1266, 1560, 1562, 1700, 2950, 3802, 5069};

// Of a character of UTF-8 that control_length() took.
std::uint32_t code_point(std::string_view character) {
    const auto byte = [&](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(character[i]));
    };
    if (character.size() == 1) return byte(0);
    if (character.size() == 2) return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
}

std::string column_identifier(const pb::JournalRelation& relation, std::size_t column) {
    return sql_identifier(relation.columns(static_cast<int>(column)).name());
}

std::string sql_value(const RowValue& value) {
    return value.kind == Kind::null ? "NULL" : sql_literal(value.text);
}

// True where the column has the value. A NULL on the right needs no "=" of the type.
std::string condition(const pb::JournalRelation& relation, std::size_t column,
                      const RowValue& value, bool is_key) {
    const std::string name = column_identifier(relation, column);
    if (value.kind == Kind::null) return name + " IS NOT DISTINCT FROM NULL";
    // Of an index: it has a "=", which finds the row by it.
    if (is_key) return name + " = " + sql_literal(value.text);
    const std::uint32_t type = relation.columns(static_cast<int>(column)).type_oid();
    if (std::find(kComparable.begin(), kComparable.end(), type) != kComparable.end())
        return name + " IS NOT DISTINCT FROM " + sql_literal(value.text);
    // format() calls the type's output function, as pgoutput does; a cast to text may not.
    return "(" + name + " IS DISTINCT FROM NULL AND pg_catalog.format('%s', " + name +
           ") = " + sql_literal(value.text) + ")";
}

// Empty: the row cannot be told from others.
std::string where_clause(const pb::JournalRelation& relation, const Row& row) {
    const std::vector<std::uint32_t> key = key_columns(relation);
    std::string conditions;
    auto add = [&](std::size_t column, bool is_key) {
        conditions +=
            (conditions.empty() ? "" : " AND ") + condition(relation, column, row[column], is_key);
    };
    for (std::uint32_t column : key) {
        if (!row[column].is_known()) return {};
        add(column, true);
    }
    bool is_whole = true;
    for (std::size_t column = 0; column < row.size(); ++column) {
        if (std::find(key.begin(), key.end(), column) != key.end()) continue;
        is_whole = is_whole && row[column].is_known();
        if (row[column].is_known()) add(column, false);
    }
    if (!key.empty()) return conditions;
    // Rows that are the same in everything: any one of them.
    if (!is_whole || conditions.empty()) return {};
    return "ctid = (SELECT ctid FROM ONLY " + sql_table(relation) + " WHERE " + conditions +
           " LIMIT 1)";
}

std::string tag_for(const std::string& body) {
    std::string tag = "$walvault$";
    for (int i = 1; body.find(tag) != std::string::npos; ++i)
        tag = "$walvault" + std::to_string(i) + "$";
    return tag;
}

std::string guarded(const std::string& statement, JournalRecordKind kind,
                    const pb::JournalRelation& relation, const Row& row, Xid xid) {
    const std::string message = "'undo of the " + std::string(kind_name(kind)) +
                                " of %s %s in transaction " + std::to_string(xid) +
                                ": %s rows were hit, not 1'";
    const std::string body =
        "\n#variable_conflict use_column\nDECLARE hit_rows bigint;\nBEGIN\n  " + statement +
        ";\n  GET DIAGNOSTICS hit_rows = ROW_COUNT;\n  IF hit_rows <> 1 THEN\n"
        "    RAISE EXCEPTION USING MESSAGE = pg_catalog.format(" +
        message + ", " + sql_literal(table_text(relation.schema(), relation.table())) + ", " +
        sql_literal(key_text(relation, row)) +
        ", hit_rows),\n      HINT = 'The row is not as that transaction left it; nothing is "
        "changed "
        "by this script.';\n  END IF;\nEND ";
    const std::string tag = tag_for(body);
    return "DO " + tag + body + tag + ";\n";
}

UndoStatement undo_insert(const pb::JournalRelation& relation, const Row& now, Xid xid) {
    const std::string where = where_clause(relation, now);
    if (where.empty()) return {.sql = "", .refusal = "the row cannot be told from others"};
    return {.sql = guarded("DELETE FROM ONLY " + sql_table(relation) + " WHERE " + where,
                           JournalRecordKind::inserted, relation, now, xid)};
}

UndoStatement undo_delete(const pb::JournalRelation& relation, const Row& before, Xid xid) {
    UndoStatement undo;
    std::string columns;
    std::string values;
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (relation.columns(static_cast<int>(i)).is_generated()) continue;
        if (before[i].kind == Kind::masked) {
            undo.leaves_masked = true;
            continue;
        }
        if (!before[i].is_known()) {
            undo.refusal = "it is not known what was in column " + column_identifier(relation, i);
            return undo;
        }
        columns += (columns.empty() ? "" : ", ") + column_identifier(relation, i);
        values += (values.empty() ? "" : ", ") + sql_value(before[i]);
    }
    if (columns.empty()) {
        undo.refusal = "no column of the row is known";
        return undo;
    }
    undo.sql = guarded("INSERT INTO " + sql_table(relation) + " (" + columns +
                           ") OVERRIDING SYSTEM VALUE VALUES (" + values + ")",
                       JournalRecordKind::deleted, relation, before, xid);
    return undo;
}

UndoStatement undo_update(const pb::JournalRelation& relation, const RowChange& change, Xid xid) {
    UndoStatement undo;
    std::string assignments;
    for (std::size_t i = 0; i < change.now.size(); ++i) {
        if (relation.columns(static_cast<int>(i)).is_generated()) continue;
        const RowValue before = i < change.before.size() ? change.before[i] : RowValue{};
        const RowValue& now = change.now[i];
        if (before == now || now.kind == Kind::unchanged || now.kind == Kind::unknown) continue;
        if (before.kind == Kind::masked || now.kind == Kind::masked) {
            undo.leaves_masked = true;
            continue;
        }
        if (!before.is_known()) {
            undo.refusal = "it is not known what was in column " + column_identifier(relation, i);
            return undo;
        }
        assignments += (assignments.empty() ? "" : ", ") + column_identifier(relation, i) + " = " +
                       sql_value(before);
    }
    if (assignments.empty()) return undo;
    const std::string where = where_clause(relation, change.now);
    if (where.empty()) {
        undo.refusal = "the row cannot be told from others";
        return undo;
    }
    undo.sql =
        guarded("UPDATE ONLY " + sql_table(relation) + " SET " + assignments + " WHERE " + where,
                JournalRecordKind::updated, relation, change.now, xid);
    return undo;
}

}  // namespace

std::string sql_identifier(std::string_view name) {
    bool escapes = false;
    std::string quoted;
    for (std::size_t at = 0; at < name.size();) {
        const std::size_t length = control_length(name, at);
        if (length > 0) {
            escapes = true;
            quoted += fmt::format("\\{:04X}", code_point(name.substr(at, length)));
            at += length;
            continue;
        }
        quoted += name[at] == '"' || name[at] == '\\' ? std::string(2, name[at])
                                                      : std::string(1, name[at]);
        ++at;
    }
    if (escapes) return "U&\"" + quoted + '"';
    // Without U& a backslash stands for itself.
    quoted = "\"";
    for (char c : name)
        quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + '"';
}

std::string sql_literal(std::string_view text) {
    // Control characters as escapes: an editor or a terminal would make others of them.
    bool escapes = text.find('\\') != std::string_view::npos;
    std::string quoted;
    for (std::size_t at = 0; at < text.size();) {
        if (const std::size_t length = control_length(text, at); length > 0) {
            escapes = true;
            // \u is made the database's encoding; \x is a byte of it.
            quoted += fmt::format(fmt::runtime(length == 1 ? "\\x{:02x}" : "\\u{:04x}"),
                                  code_point(text.substr(at, length)));
            at += length;
            continue;
        }
        if (text[at] == '\'' || text[at] == '\\') quoted += text[at];
        quoted += text[at++];
    }
    return (escapes ? "E'" : "'") + quoted + '\'';
}

std::string sql_table(const pb::JournalRelation& relation) {
    return sql_identifier(relation.schema()) + "." + sql_identifier(relation.table());
}

UndoStatement undo_statement(JournalRecordKind kind, const pb::JournalRelation& relation,
                             const RowChange& change, Xid xid) {
    switch (kind) {
        case JournalRecordKind::inserted:
            return undo_insert(relation, change.now, xid);
        case JournalRecordKind::updated:
            return undo_update(relation, change, xid);
        case JournalRecordKind::deleted:
            return undo_delete(relation, change.before, xid);
        default:
            return {.sql = "", .refusal = "only changes of rows are undone"};
    }
}

std::string undo_stop(std::uint64_t not_undone_count) {
    const std::string what =
        std::to_string(not_undone_count) + (not_undone_count == 1 ? " change is" : " changes are");
    return "DO $walvault$\nBEGIN\n  RAISE EXCEPTION USING MESSAGE = '" + what +
           " not taken back by this script: nothing is changed',\n    HINT = 'NOT UNDONE in its "
           "head says which and why; a script without this statement: walvault undo "
           "--partial';\nEND $walvault$;\n";
}

std::string undo_settings() {
    return "SET LOCAL client_encoding = 'UTF8';\n"
           "SET LOCAL DateStyle = 'ISO';\n"
           "SET LOCAL IntervalStyle = 'postgres';\n"
           "SET LOCAL extra_float_digits = 3;\n"
           "SET LOCAL bytea_output = 'hex';\n"
           "SET LOCAL TimeZone = 'UTC';\n";
}

}  // namespace walvault::agent
