#include "agent/journal_names.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "agent/config_keys.h"
#include "agent/journal_text.h"
#include "agent/render.h"
#include "proto/journal_keys.h"

namespace walvault::agent {
namespace {

constexpr std::size_t kListedMax = 8;

std::string join_limited(const std::vector<std::string>& parts) {
    std::string text;
    for (std::size_t i = 0; i < parts.size() && i < kListedMax; ++i)
        text += (i > 0 ? ", " : "") + printable(parts[i]);
    if (parts.size() > kListedMax)
        text += ", and " + std::to_string(parts.size() - kListedMax) + " more";
    return text;
}

tl::unexpected<Error> no_table_name(const std::string& text) {
    return fail(Errc::invalid_argument, "'" + printable(text) + "' is not the name of a table",
                "as orders, public.orders, or '\"odd name\".\"T.1\"'");
}

// Parts between dots that stand outside of quotes.
Result<std::vector<std::string>> split_name(const std::string& text) {
    std::vector<std::string> parts(1);
    bool inside = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') {
            if (inside && i + 1 < text.size() && text[i + 1] == '"')
                parts.back() += text[i++];
            else
                inside = !inside;
        } else if (text[i] == '.' && !inside) {
            parts.emplace_back();
        } else {
            parts.back() += text[i];
        }
    }
    if (inside || parts.size() > 2) return no_table_name(text);
    for (const std::string& part : parts)
        if (part.empty()) return no_table_name(text);
    return parts;
}

std::vector<std::string> column_names(const pb::JournalRelation& relation) {
    std::vector<std::string> names;
    for (const auto& column : relation.columns())
        names.push_back(column.name());
    return names;
}

tl::unexpected<Error> no_such_table(const std::string& text, const TableName& wanted,
                                    const std::vector<storage::JournalTableRecord>& tables) {
    std::set<std::string> whole;
    std::vector<std::string> short_names;
    for (const auto& table : tables) {
        whole.insert(table_text(table.schema, table.name));
        short_names.push_back(wanted.schema.empty() ? table.name : table.schema + "." + table.name);
    }
    const std::string asked =
        wanted.schema.empty() ? wanted.name : wanted.schema + "." + wanted.name;
    return fail(Errc::not_found,
                "the journal has nothing of table " + printable(text) +
                    printable(did_you_mean(asked, short_names)),
                whole.empty() ? "no table is in it yet; is the agent running, with [server." +
                                    std::string("NAME.journal] in its configuration?")
                              : "it has " + join_limited({whole.begin(), whole.end()}));
}

// A comma ends a value only where "name=" follows it.
bool begins_pair(std::string_view text) {
    const std::size_t equals = text.find('=');
    const std::size_t comma = text.find(',');
    return equals != std::string_view::npos && equals > 0 &&
           (comma == std::string_view::npos || equals < comma);
}

}  // namespace

Result<TableName> parse_table_name(const std::string& text) {
    TableName name;
    if (text.rfind("oid:", 0) == 0) {
        const char* end = text.data() + text.size();
        auto [stop, code] = std::from_chars(text.data() + 4, end, name.oid);
        if (code != std::errc{} || stop != end || name.oid == 0) return no_table_name(text);
        return name;
    }
    WV_TRY(auto parts, split_name(text));
    name.name = parts.back();
    if (parts.size() == 2) name.schema = parts.front();
    return name;
}

Result<std::vector<storage::JournalTableRecord>> matching_tables(
    const std::string& text, const std::vector<storage::JournalTableRecord>& tables) {
    WV_TRY(const TableName wanted, parse_table_name(text));
    std::vector<storage::JournalTableRecord> found;
    std::set<std::string> schemas;
    for (const auto& table : tables) {
        const bool fits = wanted.oid != 0
                              ? table.oid == wanted.oid
                              : table.name == wanted.name &&
                                    (wanted.schema.empty() || table.schema == wanted.schema);
        if (!fits) continue;
        found.push_back(table);
        schemas.insert(table_text(table.schema, table.name));
    }
    if (found.empty()) return no_such_table(text, wanted, tables);
    if (schemas.size() > 1)
        return fail(Errc::ambiguous, "there are several tables " + printable(text),
                    "say which: " + join_limited({schemas.begin(), schemas.end()}));
    return found;
}

Result<NamedValues> parse_named_values(const std::string& text) {
    NamedValues values;
    auto bad = [&] {
        return fail(Errc::invalid_argument, "'" + printable(text) + "' is not COLUMN=VALUE",
                    "as id=4711, or a=1,b=2 where there are several");
    };
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t equals = text.find('=', at);
        if (equals == std::string::npos || equals == at) return bad();
        std::pair<std::string, std::string> pair{text.substr(at, equals - at), ""};
        for (at = equals + 1; at < text.size(); ++at) {
            if (text[at] == '\\' && at + 1 < text.size() &&
                (text[at + 1] == ',' || text[at + 1] == '\\')) {
                pair.second += text[++at];
            } else if (text[at] == ',' && begins_pair(std::string_view(text).substr(at + 1))) {
                break;
            } else {
                pair.second += text[at];
            }
        }
        if (at < text.size()) ++at;
        values.push_back(std::move(pair));
    }
    if (values.empty()) return bad();
    return values;
}

Result<std::uint32_t> find_column(const pb::JournalRelation& relation, const std::string& name) {
    const std::vector<std::string> names = column_names(relation);
    for (std::uint32_t i = 0; i < names.size(); ++i)
        if (names[i] == name) return i;
    return fail(Errc::not_found,
                "table " + printable(table_text(relation.schema(), relation.table())) +
                    " has no column " + printable(name) + printable(did_you_mean(name, names)),
                "it has " + join_limited(names));
}

Result<std::vector<std::string>> key_values(const pb::JournalRelation& relation,
                                            const NamedValues& given) {
    std::vector<std::string> names;
    for (std::uint32_t column : key_columns(relation))
        names.push_back(relation.columns(static_cast<int>(column)).name());
    std::vector<std::string> values;
    for (const auto& [name, value] : given)
        WV_CHECK(find_column(relation, name).map([](std::uint32_t) {}));
    for (const std::string& name : names) {
        auto found = std::find_if(given.begin(), given.end(),
                                  [&](const auto& pair) { return pair.first == name; });
        if (found == given.end() || given.size() != names.size())
            return fail(Errc::invalid_argument,
                        "the key of " + printable(table_text(relation.schema(), relation.table())) +
                            " is (" + join_limited(names) + ")",
                        "give a value for each of its columns: --key " + printable(names.front()) +
                            "=…" + (names.size() > 1 ? "," + printable(names[1]) + "=…" : ""));
        values.push_back(found->second);
    }
    return values;
}

Result<Xid> parse_xid(const std::string& text) {
    const std::string digits = text.rfind("xid:", 0) == 0 ? text.substr(4) : text;
    Xid xid = 0;
    auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), xid);
    if (code != std::errc{} || end != digits.data() + digits.size() || xid == 0)
        return fail(Errc::invalid_argument, "'" + printable(text) + "' is not a transaction",
                    "as xid:4711");
    return xid;
}

}  // namespace walvault::agent
