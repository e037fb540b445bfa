// --kind of the verbs of the journal.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "agent/journal_text.h"
#include "agent/render.h"

namespace walvault::agent {

// Empty: every change of rows, and truncations. Errors: invalid_argument.
inline Result<std::set<JournalRecordKind>> row_kinds(const std::vector<std::string>& names) {
    using Kind = JournalRecordKind;
    const std::set<Kind> all{Kind::inserted, Kind::updated, Kind::deleted, Kind::truncated};
    std::set<Kind> kinds;
    for (const std::string& name : names) {
        auto found = std::find_if(all.begin(), all.end(),
                                  [&](Kind kind) { return name == kind_name(kind); });
        if (found != all.end())
            kinds.insert(*found);
        else
            return fail(Errc::invalid_argument,
                        "'" + printable(name) + "' is not a kind of change of rows",
                        "with a table there are insert, update, delete, truncate");
    }
    return kinds.empty() ? all : kinds;
}

}  // namespace walvault::agent
