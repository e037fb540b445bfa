#include "agent/journal_moment.h"

#include <doctest/doctest.h>

#include "agent/journal_gaps.h"

namespace walvault::agent {
namespace {

pb::JournalGap gap(std::uint64_t from, std::uint64_t to) {
    pb::JournalGap gap;
    gap.set_from_lsn(from);
    gap.set_to_lsn(to);
    return gap;
}

TEST_CASE("A range is read in the stretches between gaps") {
    using Stretches = std::vector<JournalStretch>;
    const std::vector<pb::JournalGap> gaps{gap(100, 200), gap(300, 400)};
    CHECK(stretches_between({}, Lsn{5}, Lsn{9}) == Stretches{{Lsn{5}, Lsn{9}}});
    CHECK(stretches_between(gaps, Lsn{0}, Lsn{500}) ==
          Stretches{{Lsn{0}, Lsn{100}}, {Lsn{200}, Lsn{300}}, {Lsn{400}, Lsn{500}}});
    CHECK(stretches_between(gaps, Lsn{150}, Lsn{350}) == Stretches{{Lsn{200}, Lsn{300}}});
    CHECK(stretches_between(gaps, Lsn{110}, Lsn{190}).empty());
    CHECK(stretches_between(gaps, Lsn{200}, Lsn{300}) == Stretches{{Lsn{200}, Lsn{300}}});
    CHECK(cut_at({{Lsn{0}, Lsn{100}}, {Lsn{200}, Lsn{300}}},
                 {Lsn{300}, Lsn{250}, Lsn{50}, Lsn{0}, Lsn{60}, Lsn{150}}) ==
          Stretches{{Lsn{0}, Lsn{50}},
                    {Lsn{50}, Lsn{60}},
                    {Lsn{60}, Lsn{100}},
                    {Lsn{200}, Lsn{250}},
                    {Lsn{250}, Lsn{300}}});
    CHECK(gaps_within(gaps, Lsn{200}, Lsn{300}).empty());
    CHECK(gaps_within(gaps, Lsn{199}, Lsn{301}).size() == 2);
}

WalFinding commit(std::uint64_t start, std::uint64_t end) {
    WalFinding finding;
    finding.start_lsn = Lsn{start};
    finding.end_lsn = Lsn{end};
    finding.at = WallTime(Micros(1'700'000'000'000'000));
    return finding;
}
Result<JournalMoment> moment(Target::Kind kind, std::uint64_t cut, std::uint64_t whole,
                             std::optional<WalFinding> last_kept = commit(800, 850)) {
    Target target;
    target.kind = kind;
    target.text = "the target";
    return moment_of(target, Lsn{cut}, last_kept, {"shop", Lsn{whole}}, "UTC");
}

TEST_CASE("What a restore keeps is in, whether its commit ends before the cut or around it") {
    // The record is padded to 8 bytes; the journal knows it by its padded end.
    CHECK(journal_end_of(commit(800, 850)).value == 856);
    CHECK(moment(Target::Kind::time, 900, 2000)->lsn.value == 900);
    CHECK(moment(Target::Kind::lsn, 820, 2000)->lsn.value == 856);
    CHECK(moment(Target::Kind::time, 900, 2000)->at == commit(800, 850).at);
}

TEST_CASE("The journal need not reach the cut, only the last commit before it") {
    CHECK(moment(Target::Kind::time, 900, 856)->lsn.value == 856);
    CHECK(moment(Target::Kind::time, 900, 5, std::nullopt)->lsn.value == 5);
    auto behind = moment(Target::Kind::time, 900, 855);
    REQUIRE_FALSE(behind);
    CHECK(behind.error().code == Errc::outside_window);
    CHECK(behind.error().message.find("shop") != std::string::npos);
    CHECK(behind.error().hint.find("--at lsn:0/357") != std::string::npos);
}

TEST_CASE("The latest is the end of the journal where that is behind the WAL") {
    auto latest = moment(Target::Kind::latest, 900, 500);
    REQUIRE(latest);
    CHECK(latest->lsn.value == 500);
    CHECK(latest->is_end_of_journal);
    CHECK_FALSE(moment(Target::Kind::latest, 900, 900)->is_end_of_journal);
}

}  // namespace
}  // namespace walvault::agent
