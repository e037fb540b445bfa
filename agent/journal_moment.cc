#include "agent/journal_moment.h"

#include <algorithm>

#include "agent/render.h"

namespace walvault::agent {

Lsn journal_end_of(const WalFinding& commit) { return (commit.end_lsn + 7).round_down(8); }

Result<JournalMoment> moment_of(const Target& target, Lsn cut_lsn,
                                const std::optional<WalFinding>& last_kept,
                                const JournalReach& reach, const std::string& zone) {
    JournalMoment moment{.lsn = cut_lsn, .text = target.text};
    if (last_kept) {
        moment.needed = journal_end_of(*last_kept);
        moment.at = last_kept->at;
        moment.lsn = std::max(moment.lsn, moment.needed);
    }
    const Lsn whole = reach.whole_until;
    if (moment.needed <= whole) {
        moment.lsn = std::min(moment.lsn, whole);
        return moment;
    }
    if (target.kind == Target::Kind::latest && !target.before) {
        moment.lsn = whole;
        moment.at = WallTime{};
        moment.is_end_of_journal = true;
        return moment;
    }
    const std::string covered =
        reach.covered_until == WallTime{} ? "" : ", " + format_local(reach.covered_until, zone);
    return fail(Errc::outside_window,
                printable(target.text) + " is behind what the journal of database " +
                    printable(reach.database) + " has: everything up to LSN " + to_string(whole) +
                    covered,
                "wait for it (walvault status), or --at lsn:" + to_string(whole));
}

}  // namespace walvault::agent
