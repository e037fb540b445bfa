#include "agent/hold.h"

#include <doctest/doctest.h>

#include "tests/support/fake_repository_view.h"

namespace walvault::agent {
namespace {

WallTime at(int second) { return WallTime(std::chrono::seconds(1'790'000'000 + second)); }

Id16 history_id() {
    Id16 id{};
    id[0] = std::byte{1};
    return id;
}

pb::BackupInfo base(const std::string& id, std::uint64_t start, std::uint64_t stop, int second) {
    pb::BackupInfo info;
    info.set_backup_id(id);
    info.set_cluster("main");
    info.set_history_id(std::string(as_text(history_id())));
    info.set_timeline(1);
    info.set_start_lsn(start);
    info.set_stop_lsn(stop);
    info.set_started_at_us(at(second - 1).time_since_epoch().count());
    info.set_stopped_at_us(at(second).time_since_epoch().count());
    return info;
}

WalFinding commit(Xid xid, std::uint64_t lsn, int second) {
    WalFinding found;
    found.kind = WalFinding::Kind::commit;
    found.xid = xid;
    found.start_lsn = Lsn{lsn};
    found.end_lsn = Lsn{lsn + 0x30};
    found.at = at(second);
    return found;
}

// A base and WAL that H1 keeps up to second 60; the window begins with a base that ended at 200.
storage::FakeRepositoryView held_and_window() {
    storage::FakeRepositoryView view;
    storage::HistoryRecord history;
    history.id = history_id();
    history.cluster = "main";
    history.timeline = 1;
    history.start_lsn = Lsn{0x1000000};
    history.end_lsn = Lsn{0x3000000};
    history.last_commit_at = at(300);
    view.history_records = {history};
    view.backup_infos = {base("held", 0x1000100, 0x1000200, 10),
                         base("window", 0x2000100, 0x2000200, 200)};
    view.findings[history.id] = {commit(600, 0x1000180, 9), commit(601, 0x1000300, 50),
                                 commit(602, 0x1000400, 70), commit(603, 0x2000300, 300)};
    view.expired[history.id] = Lsn{0x2000000};
    view.holes.emplace_back(Lsn{0x1800000}, Lsn{0x2000000});
    view.hold_records = {{.id = "H1", .from = at(20), .to = at(60)}};
    return view;
}

HoldWanted moments(int from, std::optional<int> to) {
    HoldWanted wanted{.reason = "case 4711"};
    wanted.from = at(from);
    if (to) wanted.to = at(*to);
    return wanted;
}

TEST_CASE("a hold names one thing, in order, with a reason that the ledger can keep") {
    const HoldWanted good = moments(10, 20);
    CHECK(check_hold(good, at(0)));
    const auto refused = [](const HoldWanted& wanted) {
        auto checked = check_hold(wanted, at(0));
        return !checked && checked.error().code == Errc::invalid_argument &&
               !checked.error().hint.empty();
    };
    CHECK(refused({.reason = "nothing is named"}));
    HoldWanted wanted = good;
    wanted.backup_id = "20261127T095916Z";
    CHECK(refused(wanted));
    CHECK(refused(moments(20, 10)));
    for (const std::string& reason : {std::string(), std::string(1001, 'x'), std::string("\xff")}) {
        wanted = good;
        wanted.reason = reason;
        CHECK(refused(wanted));
    }
    wanted = good;
    wanted.until = at(-1);
    CHECK(refused(wanted));
}

TEST_CASE("what is to be held must be there, up to its last moment") {
    auto view = held_and_window();
    const auto fits = [&](const HoldWanted& wanted) {
        return require_holdable(view, "main", wanted, "UTC").has_value();
    };
    CHECK(fits(moments(210, std::nullopt)));
    CHECK(fits(moments(210, 250)));
    CHECK(fits(moments(30, 60)));
    // Behind what another hold keeps it is gone.
    CHECK_FALSE(fits(moments(30, 61)));
    CHECK_FALSE(fits(moments(30, 250)));
    CHECK_FALSE(fits(moments(30, std::nullopt)));
    auto before = require_holdable(view, "main", moments(5, 8), "UTC");
    REQUIRE(!before);
    CHECK(before.error().code == Errc::outside_window);
    CHECK(before.error().hint.find("--from") != std::string::npos);
    CHECK(fits({.backup_id = "held"}));
    CHECK(require_holdable(view, "main", {.backup_id = "none"}, "UTC").error().code ==
          Errc::not_found);
}

}  // namespace
}  // namespace walvault::agent
