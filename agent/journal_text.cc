#include "agent/journal_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/render.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;
using Kind = RowValue::Kind;

constexpr std::size_t kShownBytes = 60;

const std::string& column_name(const pb::JournalRelation& relation, std::size_t column) {
    return relation.columns(static_cast<int>(column)).name();
}

// Where text may be cut without cutting a character of UTF-8.
std::size_t cut_at(std::string_view text, std::size_t limit) {
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80)
        --limit;
    return limit;
}

std::string quoted_for_people(std::string_view text) {
    std::string shown;
    const bool is_long = text.size() > kShownBytes;
    for (char c : is_long ? text.substr(0, cut_at(text, kShownBytes)) : text)
        shown += c == '\'' ? std::string("''") : std::string(1, c);
    return "'" + printable(shown) + (is_long ? "'… (" + format_size(text.size()) + ")" : "'");
}

bool is_plain_name(std::string_view name) {
    if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
    return std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
               static_cast<unsigned char>(c) >= 0x80;
    });
}

std::string name_text(std::string_view name) {
    if (is_plain_name(name)) return std::string(name);
    std::string quoted = "\"";
    for (char c : name)
        quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + '"';
}

std::vector<std::uint32_t> columns_of_key(const pb::JournalRelation& relation, const Row& row) {
    std::vector<std::uint32_t> columns = key_columns(relation);
    if (columns.empty())
        for (std::uint32_t i = 0; i < row.size(); ++i)
            columns.push_back(i);
    return columns;
}

}  // namespace

std::string value_text(const RowValue& value) {
    switch (value.kind) {
        case Kind::null:
            return "NULL";
        case Kind::text:
            return quoted_for_people(value.text);
        case Kind::masked:
            return "*";
        case Kind::unchanged:
        case Kind::unknown:
            break;
    }
    return "?";
}

std::string row_text(const pb::JournalRelation& relation, const Row& row, bool all) {
    std::string text;
    for (std::size_t i = 0; i < row.size(); ++i) {
        if (!all && !row[i].is_known() && row[i].kind != Kind::masked) continue;
        text += (text.empty() ? "" : ", ") + printable(column_name(relation, i)) + "=" +
                value_text(row[i]);
    }
    return text;
}

std::string key_text(const pb::JournalRelation& relation, const Row& row) {
    std::string names;
    std::string values;
    for (std::uint32_t column : columns_of_key(relation, row)) {
        if (column >= row.size()) continue;
        names += (names.empty() ? "" : ", ") + printable(column_name(relation, column));
        const RowValue& value = row[column];
        const bool is_short = value.kind == Kind::text && value.text.size() <= kShownBytes;
        values +=
            (values.empty() ? "" : ", ") + (is_short ? printable(value.text) : value_text(value));
    }
    return "(" + names + ")=(" + values + ")";
}

std::string change_text(const pb::JournalRelation& relation, const RowChange& change) {
    if (change.before.empty()) return row_text(relation, change.now);
    if (change.now.empty()) return row_text(relation, change.before);
    std::string text;
    for (std::size_t i = 0; i < change.now.size() && i < change.before.size(); ++i) {
        const RowValue& before = change.before[i];
        const RowValue& now = change.now[i];
        if (before == now || now.kind == Kind::unchanged) continue;
        text += (text.empty() ? "" : ", ") + printable(column_name(relation, i)) + ": " +
                value_text(before) + " -> " + value_text(now);
    }
    return text.empty() ? "nothing that is known" : text;
}

Json row_json(const pb::JournalRelation& relation, const Row& row, Json* left_out) {
    Json json = Json::object();
    for (std::size_t i = 0; i < row.size(); ++i) {
        const std::string& name = column_name(relation, i);
        switch (row[i].kind) {
            case Kind::null:
                json[name] = nullptr;
                break;
            case Kind::text:
                json[name] = row[i].text;
                break;
            case Kind::masked:
                if (left_out != nullptr) (*left_out)["masked"].push_back(name);
                break;
            case Kind::unchanged:
                if (left_out != nullptr) (*left_out)["unchanged"].push_back(name);
                break;
            case Kind::unknown:
                if (left_out != nullptr) (*left_out)["unknown"].push_back(name);
                break;
        }
    }
    return json;
}

Json key_json(const pb::JournalRelation& relation, const Row& row) {
    Json json = Json::object();
    for (std::uint32_t column : key_columns(relation))
        if (column < row.size() && row[column].is_known())
            json[column_name(relation, column)] =
                row[column].kind == Kind::null ? Json(nullptr) : Json(row[column].text);
    return json;
}

std::string csv_field(const std::optional<std::string>& value) {
    if (!value) return "";
    if (!value->empty() && value->find_first_of(",\"\r\n") == std::string::npos) return *value;
    std::string quoted = "\"";
    for (char c : *value)
        quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + '"';
}

std::string csv_line(const std::vector<std::optional<std::string>>& fields) {
    std::string line;
    for (std::size_t i = 0; i < fields.size(); ++i)
        line += (i > 0 ? "," : "") + csv_field(fields[i]);
    return line + '\n';
}

std::string copy_line(const Row& row) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
        if (i > 0) line += '\t';
        WV_ASSERT(row[i].is_known());
        if (row[i].kind == Kind::null) {
            line += "\\N";
            continue;
        }
        for (char c : row[i].text) {
            constexpr std::string_view kEscaped = "\b\f\n\r\t\v\\";
            constexpr std::string_view kLetters = "bfnrtv\\";
            const std::size_t found = kEscaped.find(c);
            if (found == std::string_view::npos) {
                line += c;
            } else {
                line += '\\';
                line += kLetters[found];
            }
        }
    }
    return line + '\n';
}

std::string table_text(std::string_view schema, std::string_view name) {
    return name_text(schema) + "." + name_text(name);
}

std::string key_was_text(const pb::JournalRelation& relation) {
    const std::string table = printable(table_text(relation.schema(), relation.table()));
    std::string names;
    for (const std::string& name : key_names(relation))
        names += (names.empty() ? "" : ", ") + printable(name);
    return names.empty() ? table + " had no key" : "the key of " + table + " was (" + names + ")";
}

std::string_view kind_name(JournalRecordKind kind) {
    switch (kind) {
        case JournalRecordKind::inserted:
            return "insert";
        case JournalRecordKind::updated:
            return "update";
        case JournalRecordKind::deleted:
            return "delete";
        case JournalRecordKind::truncated:
            return "truncate";
        case JournalRecordKind::message:
            return "message";
        case JournalRecordKind::origin:
            return "origin";
        default:
            return "";
    }
}

}  // namespace walvault::agent
