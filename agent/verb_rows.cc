#include <algorithm>
#include <numeric>

#include "agent/journal_answer.h"
#include "agent/render.h"
#include "agent/table_at.h"

namespace walvault::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kShownRows = 100;

// Column and value of each --where.
using Conditions = std::vector<std::pair<std::uint32_t, std::string>>;

Result<Conditions> parse_conditions(const pb::JournalRelation& relation,
                                    const std::vector<std::string>& texts) {
    Conditions conditions;
    for (const std::string& text : texts) {
        WV_TRY(const auto values, parse_named_values(text));
        for (const auto& [name, value] : values) {
            WV_TRY(const std::uint32_t column, find_column(relation, name));
            conditions.emplace_back(column, value);
        }
    }
    return conditions;
}

// Which rows fit, and how many may or may not: a value that is asked about is masked or unknown.
struct Filter {
    const Conditions& conditions;
    std::uint64_t undecided = 0;

    bool fits(const Row& row) {
        bool is_known = true;
        for (const auto& [column, value] : conditions) {
            if (!row[column].is_known())
                is_known = false;
            else if (row[column] != text_value(value))
                return false;
        }
        if (!is_known) ++undecided;
        return is_known;
    }
    std::vector<std::string> notes() const {
        if (undecided == 0) return {};
        return {format_count(undecided) + (undecided == 1 ? " row is" : " rows are") +
                " left out of which it is not known whether --where fits: the value is masked, or "
                "unknown"};
    }
};

// A cell of the table on a terminal: plain, but what is no text is told from it.
std::string cell_text(const RowValue& value) {
    if (value.kind != RowValue::Kind::text) return value_text(value);
    const std::string shown = value_text(value);
    return shown.find('\'', 1) == shown.size() - 1 && !value.text.empty() && value.text != "NULL" &&
                   value.text != "?" && value.text != "*"
               ? shown.substr(1, shown.size() - 2)
               : shown;
}

std::string as_of_text(const OpenedView& opened, const TableAt& at) {
    std::string text = printable(at.table) + " as of LSN " + to_string(at.moment.lsn);
    if (at.moment.at != WallTime{})
        text += ", the last commit at " + format_local(at.moment.at, opened.zone, 6);
    if (at.moment.is_end_of_journal) text += ", the end of the journal";
    return text;
}

Result<> print_text(const OpenedView& opened, const TableAt& at, const Conditions& conditions,
                    std::uint64_t limit) {
    const pb::JournalRelation& relation = *at.state->relation();
    std::vector<std::string> names;
    for (const auto& column : relation.columns())
        names.push_back(printable(column.name()));
    Table table(names);
    std::uint64_t more = 0;
    Filter filter{conditions};
    WV_CHECK(at.state->each([&](const Row& row) -> Result<bool> {
        if (!filter.fits(row)) return true;
        if (table.row_count() >= limit) {
            ++more;
            return true;
        }
        std::vector<std::string> cells;
        for (const RowValue& value : row)
            cells.push_back(cell_text(value));
        table.add_row(std::move(cells));
        return true;
    }));
    std::string text = table.text() + "(" + format_count(table.row_count()) +
                       (table.row_count() == 1 ? " row" : " rows");
    if (more > 0) text += " of " + format_count(table.row_count() + more) + "; raise -L for more";
    text += ")  " + as_of_text(opened, at) + "\n";
    for (const std::string& note : filter.notes())
        text += "note: " + note + "\n";
    return put_text(text);
}

Result<> print_list(const Globals& globals, const OpenedView& opened, const JournalSet& set,
                    const TableAt& at, const Conditions& conditions, std::uint64_t limit) {
    const pb::JournalRelation& relation = *at.state->relation();
    std::vector<std::string> names;
    for (const auto& column : relation.columns())
        names.push_back(column.name());
    Json head{{"server", opened.cluster.name},
              {"database", set.database},
              {"table", at.table},
              {"at_lsn", to_string(at.moment.lsn)},
              {"last_commit_at", nullptr},
              {"end_of_journal", at.moment.is_end_of_journal},
              {"columns", names}};
    if (at.moment.at != WallTime{}) head["last_commit_at"] = format_utc(at.moment.at, 6);
    AnswerList list(globals, {"rows", "row", names}, head);
    std::uint64_t count = 0;
    bool more = false;
    Filter filter{conditions};
    WV_CHECK(at.state->each([&](const Row& row) -> Result<bool> {
        if (!filter.fits(row)) return true;
        if (limit > 0 && count >= limit) {
            more = true;
            return !conditions.empty();  // rows that cannot be decided are counted to the end
        }
        ++count;
        if (globals.output == Output::csv) {
            std::vector<std::optional<std::string>> fields;
            for (const RowValue& value : row)
                fields.push_back(value.kind == RowValue::Kind::null
                                     ? std::nullopt
                                     : std::optional<std::string>(value.text));
            return list.add_csv(fields);
        }
        Json left_out = Json::object();
        Json json{{"values", row_json(relation, row, &left_out)}};
        json.update(left_out);
        return list.add(json);
    }));
    const AnswerTail tail{.more = more, .notes = filter.notes()};
    tail.tell_beside_csv(globals, opened.zone);
    return list.finish({{"more", more}, {"notes", tail.notes}});
}

Result<> show(const Globals& globals, const RowsArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(const JournalMoment moment, resolve_moment(opened, set, arguments.at, arguments.before));
    WV_TRY(const TableAt at, table_at(opened, set, arguments.table, moment));
    WV_TRY(const Conditions conditions, parse_conditions(*at.state->relation(), arguments.where));
    if (globals.output == Output::text)
        return print_text(opened, at, conditions,
                          arguments.limit == 0 ? kShownRows : arguments.limit);
    if (globals.output == Output::csv) {
        std::vector<std::size_t> columns(
            static_cast<std::size_t>(at.state->relation()->columns_size()));
        std::iota(columns.begin(), columns.end(), std::size_t{0});
        WV_CHECK(require_known_values(at, columns));
    }
    return print_list(globals, opened, set, at, conditions, arguments.limit);
}

}  // namespace

int verb_rows(const Globals& globals, const RowsArguments& arguments) {
    if (auto done = show(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
