#include <cstdio>

#include "agent/journal_answer.h"
#include "agent/table_at.h"

namespace walvault::agent {
namespace {

Result<> print_csv(const Globals& globals, const TableAt& at, bool header) {
    std::vector<std::string> names;
    for (const auto& column : at.state->relation()->columns())
        names.push_back(column.name());
    AnswerList list(globals, {"rows", "row", header ? names : std::vector<std::string>{}}, {});
    WV_CHECK(at.state->each([&](const Row& row) {
        std::vector<std::optional<std::string>> fields;
        for (const RowValue& value : row)
            fields.push_back(value.kind == RowValue::Kind::null
                                 ? std::nullopt
                                 : std::optional<std::string>(value.text));
        return Result<bool>(list.add_csv(fields));
    }));
    return list.finish({});
}

Result<> print_copy(const TableAt& at, bool header) {
    if (header) {
        Row names;
        for (const auto& column : at.state->relation()->columns())
            names.push_back(text_value(column.name()));
        WV_CHECK(put_text(copy_line(names)));
    }
    const auto print = [](const Row& row) -> Result<bool> {
        WV_CHECK(put_text(copy_line(row)));
        return true;
    };
    WV_CHECK(at.state->each(print));
    if (std::fflush(stdout) != 0) return fail(Errc::io, "the answer could not be written whole");
    return {};
}

Result<> extract(const Globals& globals, const ExtractArguments& arguments) {
    WV_TRY(OpenedView opened, open_view(globals));
    WV_TRY(JournalSet set, open_journals(opened, arguments.database));
    WV_TRY(const JournalMoment moment, resolve_moment(opened, set, arguments.at, arguments.before));
    WV_TRY(const TableAt at, table_at(opened, set, arguments.table, moment));
    // Nothing is printed of what cannot be printed whole.
    WV_CHECK(require_known_values(at));
    return globals.output == Output::csv ? print_csv(globals, at, arguments.header)
                                         : print_copy(at, arguments.header);
}

}  // namespace

int verb_extract(const Globals& globals, const ExtractArguments& arguments) {
    if (auto done = extract(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
