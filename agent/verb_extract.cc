#include <cstdio>

#include "agent/journal_answer.h"
#include "agent/table_at.h"

namespace walvault::agent {
namespace {

// All but generated ones, which COPY … FROM does not take.
std::vector<std::size_t> written_columns(const TableAt& at) {
    std::vector<std::size_t> columns;
    const auto& all = at.state->relation()->columns();
    for (int i = 0; i < all.size(); ++i)
        if (!all[i].is_generated()) columns.push_back(static_cast<std::size_t>(i));
    return columns;
}

Result<> print_csv(const Globals& globals, const TableAt& at, bool header) {
    const std::vector<std::size_t> columns = written_columns(at);
    std::vector<std::string> names;
    for (std::size_t column : columns)
        names.push_back(at.state->relation()->columns(static_cast<int>(column)).name());
    AnswerList list(globals, {"rows", "row", header ? names : std::vector<std::string>{}}, {});
    WV_CHECK(at.state->each([&](const Row& row) {
        std::vector<std::optional<std::string>> fields;
        for (std::size_t column : columns)
            fields.push_back(row[column].kind == RowValue::Kind::null
                                 ? std::nullopt
                                 : std::optional<std::string>(row[column].text));
        return Result<bool>(list.add_csv(fields));
    }));
    return list.finish({});
}

Result<> print_copy(const TableAt& at, bool header) {
    const std::vector<std::size_t> columns = written_columns(at);
    if (header) {
        Row names;
        for (std::size_t column : columns)
            names.push_back(
                text_value(at.state->relation()->columns(static_cast<int>(column)).name()));
        WV_CHECK(put_text(copy_line(names)));
    }
    const auto print = [&](const Row& row) -> Result<bool> {
        Row written;
        for (std::size_t column : columns)
            written.push_back(row[column]);
        WV_CHECK(put_text(copy_line(written)));
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
    WV_CHECK(require_known_values(at, written_columns(at)));
    return globals.output == Output::csv ? print_csv(globals, at, arguments.header)
                                         : print_copy(at, arguments.header);
}

}  // namespace

int verb_extract(const Globals& globals, const ExtractArguments& arguments) {
    if (auto done = extract(globals, arguments); !done) return report(globals, done.error());
    return kExitDone;
}

}  // namespace walvault::agent
