#include "agent/journal_gaps.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/render.h"

namespace walvault::agent {

std::vector<JournalStretch> stretches_between(const std::vector<pb::JournalGap>& gaps, Lsn from,
                                              Lsn to) {
    std::vector<JournalStretch> stretches;
    for (const auto& gap : gaps) {
        const Lsn begin{gap.from_lsn()};
        const Lsn end{gap.to_lsn()};
        if (end <= from || begin >= to) continue;
        if (from < begin) stretches.push_back({from, begin});
        from = std::max(from, end);
    }
    if (from < to) stretches.push_back({from, to});
    return stretches;
}

std::vector<JournalStretch> cut_at(const std::vector<JournalStretch>& stretches,
                                   const std::vector<Lsn>& places) {
    const std::set<Lsn> sorted(places.begin(), places.end());
    std::vector<JournalStretch> pieces;
    for (JournalStretch rest : stretches) {
        for (auto at = sorted.upper_bound(rest.from); at != sorted.end() && *at < rest.to; ++at) {
            pieces.push_back({rest.from, *at});
            rest.from = *at;
        }
        pieces.push_back(rest);
    }
    return pieces;
}

std::vector<pb::JournalGap> gaps_within(const std::vector<pb::JournalGap>& gaps, Lsn from, Lsn to) {
    std::vector<pb::JournalGap> found;
    for (const auto& gap : gaps)
        if (Lsn{gap.to_lsn()} > from && Lsn{gap.from_lsn()} < to) found.push_back(gap);
    return found;
}

std::string gap_text(const pb::JournalGap& gap, const std::string& zone) {
    std::string text = "changes from " + to_string(Lsn{gap.from_lsn()}) + " to " +
                       to_string(Lsn{gap.to_lsn()}) + " are not in the journal";
    if (gap.from_at_us() != 0 && gap.to_at_us() != 0)
        text += ", between " + format_local(WallTime(Micros(gap.from_at_us())), zone) + " and " +
                format_local(WallTime(Micros(gap.to_at_us())), zone);
    if (!gap.cause().empty()) text += " (" + printable(gap.cause()) + ")";
    return text;
}

nlohmann::ordered_json gap_json(const pb::JournalGap& gap) {
    auto time_json = [](std::int64_t at_us) {
        return at_us == 0 ? nlohmann::ordered_json(nullptr)
                          : nlohmann::ordered_json(format_utc(WallTime(Micros(at_us)), 6));
    };
    return {{"from_lsn", to_string(Lsn{gap.from_lsn()})},
            {"to_lsn", to_string(Lsn{gap.to_lsn()})},
            {"from_at", time_json(gap.from_at_us())},
            {"to_at", time_json(gap.to_at_us())},
            {"left_end_lsn", gap.left_end_lsn() == 0
                                 ? nlohmann::ordered_json(nullptr)
                                 : nlohmann::ordered_json(to_string(Lsn{gap.left_end_lsn()}))},
            {"cause", gap.cause()}};
}

}  // namespace walvault::agent
