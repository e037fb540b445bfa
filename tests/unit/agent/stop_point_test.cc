#include "agent/stop_point.h"

#include <doctest/doctest.h>

#include "tests/support/fake_repository_view.h"
#include "tests/support/segment_bytes.h"

namespace walvault::agent {
namespace {

using storage::FakeRepositoryView;

WallTime at(std::int64_t second) { return WallTime(std::chrono::seconds(1'000'000'000 + second)); }
Id16 history_id(unsigned number) {
    Id16 id{};
    id[0] = static_cast<std::byte>(number);
    return id;
}

// One history from 0/1000000 on; a base from 2000028 to 2000100 at 100 s; commits a second apart
// after it: xid 700+n at 0/2001000 + n * 0x100, stamped 200+n, 64 bytes long.
class Cluster {
public:
    FakeRepositoryView view;

    Cluster() {
        view.cluster_records.push_back({"main", 7, kSegmentBytes, 150020});
        view.history_records.push_back({.cluster = "main",
                                        .id = history_id(1),
                                        .timeline = 1,
                                        .start_lsn = Lsn{0x1000000},
                                        .end_lsn = Lsn{0x3000000},
                                        .last_commit_at = {},
                                        .covered_until = at(250)});
        add_base("base1", 0x2000028, 0x2000100, 100);
    }
    void add_base(const std::string& id, std::uint64_t start, std::uint64_t stop,
                  std::int64_t second) {
        pb::BackupInfo base;
        base.set_backup_id(id);
        base.set_history_id(std::string(as_text(history_id(1))));
        base.set_timeline(1);
        base.set_start_lsn(start);
        base.set_stop_lsn(stop);
        base.set_started_at_us(at(second).time_since_epoch().count());
        base.set_stopped_at_us(at(second + 1).time_since_epoch().count());
        view.backup_infos.push_back(base);
    }
    void commit(Xid xid, std::uint64_t lsn, WallTime stamp,
                WalFinding::Kind kind = WalFinding::Kind::commit) {
        WalFinding finding;
        finding.kind = kind;
        finding.xid = xid;
        finding.start_lsn = Lsn{lsn};
        finding.end_lsn = Lsn{lsn + 0x3C};
        finding.at = stamp;
        view.findings[history_id(1)].push_back(finding);
    }
    void ten_commits() {
        for (unsigned n = 1; n <= 10; ++n)
            commit(700 + n, lsn_of(n), at(200 + n));
        view.history_records[0].last_commit_at = at(210);
    }
    void mark(pb::MarkEntry::Kind kind, std::uint64_t lsn, const std::string& name,
              WallTime stamp) {
        storage::MarkRecord record;
        record.history_id = history_id(1);
        record.mark.set_kind(kind);
        record.mark.set_start_lsn(lsn);
        record.mark.set_end_lsn(lsn + 0x60);
        record.mark.set_name(name);
        record.mark.set_at_us(stamp.time_since_epoch().count());
        view.mark_records.push_back(record);
    }
    static std::uint64_t lsn_of(unsigned n) { return 0x2001000 + n * 0x100; }

    Result<StopPoint> resolve(const std::string& text, bool before = false) {
        const TimeContext times{at(1000), "UTC"};
        auto target = parse_target(text, before, times);
        REQUIRE_MESSAGE(target, text);
        return resolve_target(view, *target, ResolveContext{"main", at(1000), "UTC"});
    }
    Result<StopPoint> resolve_at(WallTime moment, bool before = false) {
        return resolve(to_utc_text(moment), before);
    }
    Errc failure(const std::string& text, bool before = false) {
        auto stop = resolve(text, before);
        REQUIRE_MESSAGE(!stop, text);
        return stop.error().code;
    }
};

constexpr Micros kMicro{1};

TEST_CASE("--to keeps a commit at exactly that time and --before does not") {
    Cluster cluster;
    cluster.ten_commits();
    auto kept = cluster.resolve_at(at(203));
    REQUIRE(kept);
    CHECK(kept->last_kept->xid == 703);
    CHECK(kept->first_left_out->xid == 704);
    CHECK(kept->cut_lsn.value == Cluster::lsn_of(4));
    CHECK(cluster.resolve_at(at(203) - kMicro)->last_kept->xid == 702);
    CHECK(cluster.resolve_at(at(203) + kMicro)->last_kept->xid == 703);
    CHECK(cluster.resolve_at(at(203), true)->last_kept->xid == 702);
    CHECK(cluster.resolve_at(at(203) + kMicro, true)->last_kept->xid == 703);
    CHECK(kept->left_out_commits == 7);
}

TEST_CASE("commits of one microsecond stay together") {
    Cluster cluster;
    cluster.commit(701, 0x2001100, at(201));
    cluster.commit(702, 0x2001200, at(201));
    cluster.commit(703, 0x2001300, at(202));
    CHECK(cluster.resolve_at(at(201))->last_kept->xid == 702);
    CHECK_FALSE(cluster.resolve_at(at(201), true)->recovery_lsn);
}

TEST_CASE("a target in the quiet after the last commit is the last commit") {
    Cluster cluster;
    cluster.ten_commits();
    auto stop = cluster.resolve_at(at(240));
    REQUIRE(stop);
    CHECK(stop->last_kept->xid == 710);
    CHECK_FALSE(stop->first_left_out);
    CHECK(stop->recovery_lsn->value == Cluster::lsn_of(10));
    CHECK(stop->wal_to_lsn.value == Cluster::lsn_of(10) + 0x3C);
    CHECK(stop->wal_from_lsn.value == 0x2000000);
}

TEST_CASE("a time before, after or ahead of the window is refused with what works") {
    Cluster cluster;
    cluster.ten_commits();
    auto before = cluster.resolve_at(at(50));
    REQUIRE(!before);
    CHECK(before.error().code == Errc::outside_window);
    CHECK(before.error().hint == "try --to earliest");
    auto after = cluster.resolve_at(at(251));
    REQUIRE(!after);
    CHECK(after.error().code == Errc::outside_window);
    CHECK(after.error().hint == "try --to latest");
    auto ahead = cluster.resolve_at(at(5000));
    REQUIRE(!ahead);
    CHECK(ahead.error().message.find("in the future") != std::string::npos);
    CHECK(cluster.resolve("earliest"));
    CHECK(cluster.resolve("latest")->last_kept->xid == 710);
}

TEST_CASE(
    "a cluster on which nothing ever committed restores to its base only from when that began") {
    Cluster cluster;
    CHECK(cluster.resolve_at(at(100)));
    CHECK_FALSE(cluster.resolve_at(at(100) - kMicro));
    auto latest = cluster.resolve("latest");
    REQUIRE(latest);
    CHECK_FALSE(latest->recovery_lsn);
    CHECK(latest->wal_to_lsn.value == 0x3000000);
}

TEST_CASE("a base alone is replayed to the record that ends its backup") {
    Cluster cluster;
    cluster.commit(0, 0x20000D8, WallTime{}, WalFinding::Kind::backup_end);
    cluster.ten_commits();
    for (const char* target : {"earliest", "immediate", "backup:base1", "lsn:0/2000200"}) {
        auto stop = cluster.resolve(target);
        REQUIRE_MESSAGE(stop, target);
        CHECK(stop->recovery_lsn->value == 0x20000D8);
        CHECK(stop->wal_to_lsn.value == 0x2000100);
    }
}

TEST_CASE("WAL from before the base shows the state of quiet moments before it") {
    Cluster cluster;
    cluster.commit(690, 0x1500000, at(40));
    cluster.ten_commits();
    auto stop = cluster.resolve_at(at(60));
    REQUIRE(stop);
    CHECK(stop->last_kept->xid == 690);
    CHECK_FALSE(stop->recovery_lsn);
    CHECK_FALSE(cluster.resolve_at(at(39)));
    cluster.view.gap_records.push_back(
        {"main", history_id(1), 1, Lsn{0x1600000}, Lsn{0x1700000}, at(41), at(55), "lost"});
    CHECK_FALSE(cluster.resolve_at(at(60)));
    CHECK(cluster.resolve_at(at(150)));
    CHECK_FALSE(cluster.resolve_at(at(150))->last_kept);
}

TEST_CASE("the newest base whose stop is not after the cut is chosen") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.add_base("base2", 0x2001528, 0x2001580, 205);
    CHECK(cluster.resolve("xid:704")->base.backup_id() == "base1");
    CHECK(cluster.resolve("xid:705")->base.backup_id() == "base1");
    auto later = cluster.resolve("xid:706");
    REQUIRE(later);
    CHECK(later->base.backup_id() == "base2");
    CHECK(later->recovery_lsn->value == Cluster::lsn_of(6));
    CHECK(cluster.resolve("immediate")->base.backup_id() == "base2");
    CHECK(cluster.resolve("earliest")->base.backup_id() == "base1");
    CHECK(cluster.resolve("backup:base1")->cut_lsn.value == 0x2000100);
    CHECK(cluster.failure("backup:base9") == Errc::outside_window);
}

TEST_CASE("--to an LSN keeps records that start there and --before does not") {
    Cluster cluster;
    cluster.ten_commits();
    CHECK(cluster.resolve("lsn:0/2001300")->last_kept->xid == 703);
    CHECK(cluster.resolve("lsn:0/2001300", true)->last_kept->xid == 702);
    CHECK(cluster.resolve("lsn:0/20012FF")->last_kept->xid == 702);
    CHECK(cluster.failure("lsn:0/2000000") == Errc::outside_window);
    CHECK(cluster.failure("lsn:0/3000000") == Errc::outside_window);
    CHECK(cluster.resolve("lsn:0/3000000", true)->last_kept->xid == 710);
}

TEST_CASE("a transaction is kept by --to and left out by --before") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.commit(720, 0x2002000, at(220), WalFinding::Kind::abort);
    CHECK(cluster.resolve("xid:705")->last_kept->xid == 705);
    auto before = cluster.resolve("xid:705", true);
    CHECK(before->last_kept->xid == 704);
    CHECK(before->first_left_out->xid == 705);
    CHECK(before->cut_lsn.value == Cluster::lsn_of(5));
    CHECK(cluster.resolve("xid:720").error().message.find("rolled back") != std::string::npos);
    auto unknown = cluster.resolve("xid:4000");
    REQUIRE(!unknown);
    CHECK(unknown.error().code == Errc::outside_window);
    CHECK(unknown.error().hint.find("xid:710") != std::string::npos);
}

TEST_CASE("a transaction number that came round again lists its commits") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.commit(705, 0x2100000, at(230));
    auto twice = cluster.resolve("xid:705", true);
    REQUIRE(!twice);
    CHECK(twice.error().code == Errc::ambiguous);
    CHECK(twice.error().hint.find("--before lsn:0/2001500") != std::string::npos);
    CHECK(twice.error().hint.find("--before lsn:0/2100000") != std::string::npos);
    CHECK(cluster.resolve("lsn:0/2100000", true)->last_kept->xid == 710);
}

TEST_CASE("a restore point is reached itself") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.mark(pb::MarkEntry::RESTORE_POINT, 0x2001580, "release", at(205));
    auto stop = cluster.resolve("name:release");
    REQUIRE(stop);
    CHECK(stop->last_kept->xid == 705);
    CHECK(stop->recovery_lsn->value == 0x2001580);
    CHECK(stop->wal_to_lsn.value == 0x20015E0);
    CHECK(cluster.resolve("name:release", true)->recovery_lsn->value == Cluster::lsn_of(5));
    CHECK(cluster.failure("name:other") == Errc::outside_window);
    cluster.mark(pb::MarkEntry::RESTORE_POINT, 0x2001880, "release", at(208));
    CHECK(cluster.failure("name:release") == Errc::ambiguous);
}

TEST_CASE("a restore point from before the window is no second meaning") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.mark(pb::MarkEntry::RESTORE_POINT, 0x1500000, "release", at(20));
    auto old = cluster.resolve("name:release");
    REQUIRE(!old);
    CHECK(old.error().hint == "try --to earliest");
    cluster.mark(pb::MarkEntry::RESTORE_POINT, 0x2001580, "release", at(205));
    CHECK(cluster.resolve("name:release")->last_kept->xid == 705);
    cluster.view.findings[history_id(1)].insert(cluster.view.findings[history_id(1)].begin(),
                                                WalFinding{.kind = WalFinding::Kind::commit,
                                                           .start_lsn = Lsn{0x1400000},
                                                           .end_lsn = Lsn{0x1400040},
                                                           .xid = 705,
                                                           .at = at(10)});
    CHECK(cluster.resolve("xid:705")->cut_lsn.value == Cluster::lsn_of(5) + 0x40);
}

TEST_CASE("a prepared transaction after the last commit is replayed too") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.mark(pb::MarkEntry::PREPARED, 0x2001B00, "", at(215));
    CHECK(cluster.resolve_at(at(220))->recovery_lsn->value == 0x2001B00);
    CHECK(cluster.resolve("xid:710")->recovery_lsn->value == Cluster::lsn_of(10));
}

TEST_CASE(
    "a prepared transaction behind the last commit is replayed although its clock was set back") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.mark(pb::MarkEntry::PREPARED, 0x2001B00, "", at(210) - std::chrono::hours(5));
    CHECK(cluster.resolve("latest")->recovery_lsn->value == 0x2001B00);
}

TEST_CASE("a target inside a gap is refused, and both edges that are named work") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.view.history_records[0].end_lsn = Lsn{0x4000000};
    cluster.commit(711, 0x3500000, at(240));
    cluster.view.gap_records.push_back(
        {"main", history_id(1), 1, Lsn{0x2002000}, Lsn{0x2400000}, at(211), at(235), "slot lost"});
    cluster.add_base("base2", 0x3000028, 0x3000100, 236);
    auto inside = cluster.resolve_at(at(220));
    REQUIRE(!inside);
    CHECK(inside.error().code == Errc::gap);
    CHECK(inside.error().hint == "try --to lsn:0/2001A00 or --to backup:base2");
    CHECK(cluster.resolve("lsn:0/2001A00")->last_kept->xid == 710);
    CHECK(cluster.resolve("backup:base2"));
    CHECK_FALSE(cluster.resolve("backup:base2")->last_kept);
    CHECK(cluster.resolve("xid:711")->base.backup_id() == "base2");
    CHECK(cluster.failure("lsn:0/2300000") == Errc::gap);
    CHECK(cluster.failure(to_utc_text(at(210))) == Errc::gap);
}

TEST_CASE("a clock set back makes a moment ambiguous, and each candidate resolves") {
    Cluster cluster;
    cluster.commit(701, 0x2001100, at(201));
    cluster.commit(702, 0x2001200, at(202));
    cluster.commit(703, 0x2001300, at(320));
    cluster.commit(704, 0x2001400, at(204));
    cluster.commit(705, 0x2001500, at(206));
    cluster.view.history_records[0].covered_until = at(320);
    cluster.view.steps[history_id(1)].push_back({Lsn{0x2001400}, at(204), at(320)});
    auto twice = cluster.resolve_at(at(205));
    REQUIRE(!twice);
    CHECK(twice.error().code == Errc::ambiguous);
    CHECK(twice.error().hint.find("--to lsn:0/2001200 ") != std::string::npos);
    CHECK(twice.error().hint.find("--to lsn:0/2001400 ") != std::string::npos);
    CHECK(cluster.resolve("lsn:0/2001400")->last_kept->xid == 704);
    CHECK(cluster.resolve_at(at(203))->last_kept->xid == 702);
}

TEST_CASE(
    "a step of the clock is looked behind once, however many marks an older version made of it") {
    Cluster cluster;
    cluster.commit(701, 0x2001100, at(201));
    cluster.commit(702, 0x2001200, at(390));
    std::uint64_t lsn = 0x2001300;
    for (unsigned n = 0; n < 100; ++n, lsn += 0x40) {
        cluster.commit(703 + n, lsn, at(202) + Micros(n));
        cluster.view.steps[history_id(1)].push_back({Lsn{lsn}, at(202) + Micros(n), at(390)});
    }
    cluster.commit(900, lsn, at(300));
    cluster.view.history_records[0].covered_until = at(390);
    cluster.view.scan_count = 0;
    auto twice = cluster.resolve_at(at(205));
    REQUIRE(!twice);
    CHECK(twice.error().code == Errc::ambiguous);
    CHECK(twice.error().hint.find("--to lsn:" + to_string(Lsn{lsn - 0x40})) != std::string::npos);
    CHECK(cluster.view.scan_count == 1);
}

TEST_CASE("what ran at once with the first transaction behind a step is ambiguous too") {
    Cluster cluster;
    cluster.commit(701, 0x2001100, at(201));
    cluster.commit(702, 0x2001200, at(390));
    cluster.commit(703, 0x2001300, at(205));
    cluster.commit(704, 0x2001400, at(205) - Micros(400'000));
    cluster.view.history_records[0].covered_until = at(390);
    cluster.view.steps[history_id(1)].push_back({Lsn{0x2001300}, at(205), at(390)});
    auto twice = cluster.resolve_at(at(205) - Micros(200'000));
    REQUIRE(!twice);
    CHECK(twice.error().code == Errc::ambiguous);
}

TEST_CASE("a base in the segment of a promotion serves the timeline that continues it") {
    Cluster cluster;
    // Timeline 1 was left behind the base, in its segment.
    cluster.view.history_records.push_back({.cluster = "main",
                                            .id = history_id(2),
                                            .timeline = 2,
                                            .start_lsn = Lsn{0x2000000},
                                            .end_lsn = Lsn{0x3000000},
                                            .last_commit_at = {},
                                            .covered_until = at(250),
                                            .parent = history_id(1),
                                            .fork_lsn = Lsn{0x2000800}});
    auto windows = restore_windows(cluster.view, "main");
    REQUIRE(windows);
    REQUIRE(windows->size() == 2);
    CHECK((*windows)[1].history.id == history_id(2));
    CHECK((*windows)[1].bases.size() == 1);

    // One that ended behind the fork is of what was left behind, for those after it, too.
    cluster.add_base("base2", 0x2000700, 0x2000900, 120);
    auto third = cluster.view.history_records.back();
    third.id = history_id(3);
    third.timeline = 3;
    third.parent = history_id(2);
    third.fork_lsn = Lsn{0x2000A00};
    cluster.view.history_records.push_back(third);
    windows = restore_windows(cluster.view, "main");
    REQUIRE(windows);
    for (const auto& window : *windows)
        CHECK(window.bases.size() == (window.history.timeline == 1 ? 2 : 1));
}

pb::PackInfo wal_pack(std::uint64_t start, std::uint64_t end, WallTime last_at) {
    pb::PackInfo pack;
    pack.set_kind(pb::PACK_KIND_WAL);
    pack.set_history_id(std::string(as_text(history_id(1))));
    pack.set_start_lsn(start);
    pack.set_end_lsn(end);
    pack.mutable_summary()->set_last_at_us(last_at.time_since_epoch().count());
    return pack;
}

void expire(Cluster& cluster, std::uint64_t from, std::uint64_t to) {
    cluster.view.expired[history_id(1)] = Lsn{to};
    cluster.view.holes.emplace_back(Lsn{from}, Lsn{to});
}

TEST_CASE(
    "a base that retention kept alone is restored as it is, and nothing between it and the "
    "window") {
    Cluster cluster;
    cluster.add_base("alone", 0x1000028, 0x1000100, 10);
    cluster.commit(600, 0x1000080, at(10));
    cluster.ten_commits();
    CHECK(cluster.resolve_at(at(50)));
    expire(cluster, 0x1800000, 0x2000000);
    auto windows = restore_windows(cluster.view, "main");
    REQUIRE(windows);
    REQUIRE(windows->size() == 1);
    CHECK(windows->front().bases.size() == 1);
    CHECK(windows->front().single_bases.size() == 1);
    CHECK(windows->front().from == at(100));
    CHECK(cluster.failure(to_utc_text(at(50))) == Errc::outside_window);
    CHECK(cluster.failure("lsn:0/1000200") == Errc::outside_window);
    CHECK(cluster.failure("xid:600") == Errc::outside_window);
    CHECK(cluster.resolve("earliest")->base.backup_id() == "base1");
    CHECK(cluster.resolve_at(at(203))->last_kept->xid == 703);
    auto alone = cluster.resolve("backup:alone");
    REQUIRE(alone);
    CHECK(alone->cut_lsn == Lsn{0x1000100});
    CHECK(alone->last_kept->xid == 600);
    CHECK(cluster.resolve("backup:base1"));

    // Without any other base, what has no window still has its base.
    std::erase_if(cluster.view.backup_infos,
                  [](const pb::BackupInfo& base) { return base.backup_id() == "base1"; });
    CHECK(restore_windows(cluster.view, "main")->empty());
    CHECK(cluster.failure("latest") == Errc::outside_window);
    CHECK(cluster.resolve("backup:alone"));
}

TEST_CASE("what a hold keeps is a window of its own, up to its last moment") {
    Cluster cluster;
    cluster.add_base("held", 0x1000028, 0x1000100, 10);
    cluster.commit(600, 0x1000080, at(10));
    cluster.commit(601, 0x1000200, at(40));
    cluster.commit(602, 0x1000300, at(50));
    cluster.commit(603, 0x1000400, at(70));
    cluster.ten_commits();
    expire(cluster, 0x1800000, 0x2000000);
    cluster.view.hold_records = {{.id = "H5", .from = at(30), .to = at(60)}};
    auto windows = restore_windows(cluster.view, "main");
    REQUIRE(windows);
    REQUIRE(windows->size() == 2);
    CHECK(windows->front().hold_id == "H5");
    CHECK(windows->front().from == at(10));
    CHECK(windows->front().until == at(60));
    CHECK(windows->front().end_lsn == Lsn{0x1000400});
    CHECK(windows->back().hold_id.empty());
    const auto in_lsns = restore_lsn_windows(cluster.view, "main");
    REQUIRE(in_lsns);
    REQUIRE(in_lsns->size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK((*in_lsns)[i].from == Lsn{(*windows)[i].bases.front().stop_lsn()});
        CHECK((*in_lsns)[i].end == (*windows)[i].end_lsn);
    }
    for (const auto& [moment, xid] : {std::pair(at(30), 600), {at(40), 601}, {at(60), 602}}) {
        auto stop = cluster.resolve_at(moment);
        REQUIRE(stop);
        CHECK(stop->base.backup_id() == "held");
        CHECK(stop->last_kept->xid == static_cast<Xid>(xid));
    }
    CHECK(cluster.resolve("xid:601")->base.backup_id() == "held");
    CHECK(cluster.resolve("xid:602", true)->last_kept->xid == 601);
    CHECK(cluster.resolve("lsn:0/1000250")->last_kept->xid == 601);
    CHECK(cluster.resolve("earliest")->base.backup_id() == "held");
    CHECK(cluster.resolve_at(at(203))->last_kept->xid == 703);
    CHECK(cluster.resolve("latest")->last_kept->xid == 710);
    // Behind the hold nothing is known.
    for (const char* target : {"xid:603", "lsn:0/1000500"})
        CHECK(cluster.failure(target) == Errc::outside_window);
    auto between = cluster.resolve_at(at(65));
    REQUIRE(!between);
    CHECK(between.error().code == Errc::outside_window);
    CHECK(between.error().message.find("holds keep") != std::string::npos);
    auto before = cluster.resolve_at(at(5));
    REQUIRE(!before);
    CHECK(before.error().hint == "try --to earliest");

    // With a hole in it, it is none.
    cluster.view.holes.emplace_back(Lsn{0x1000210}, Lsn{0x1000220});
    CHECK(restore_windows(cluster.view, "main")->size() == 1);
}

TEST_CASE("what a hold keeps is told of where only an archive knows what follows on it") {
    Cluster cluster;
    cluster.add_base("held", 0x1000028, 0x1000100, 10);
    cluster.add_base("ready later", 0x1000450, 0x1000500, 75);
    cluster.commit(600, 0x1000080, at(10));
    cluster.commit(603, 0x1000400, at(70));
    cluster.ten_commits();
    expire(cluster, 0x1800000, 0x2000000);
    cluster.view.hold_records = {{.id = "H5", .from = at(30), .to = at(60)}};
    cluster.view.clock_is_archived = true;
    cluster.view.pack_infos = {wal_pack(0x1000000, 0x1800000, at(70)),
                               wal_pack(0x2000000, 0x3000000, at(203))};
    auto windows = restore_windows(cluster.view, "main");
    REQUIRE(windows);
    REQUIRE(windows->size() == 2);
    CHECK(windows->front().hold_id == "H5");
    REQUIRE(windows->front().bases.size() == 1);
    CHECK(windows->front().bases.front().backup_id() == "held");
    CHECK(windows->front().until == at(60));
    CHECK(windows->front().end_lsn == Lsn{0x1800000});
    // With a hole before what follows, or in it, it is none.
    cluster.view.pack_infos[0] = wal_pack(0x1000000, 0x1800000, at(55));
    CHECK(restore_windows(cluster.view, "main")->size() == 1);
    cluster.view.pack_infos[0] = wal_pack(0x1000300, 0x1800000, at(70));
    cluster.view.holes.emplace_back(Lsn{0x1000210}, Lsn{0x1000300});
    CHECK(restore_windows(cluster.view, "main")->size() == 1);
    cluster.view.holes.pop_back();
    // Nothing that is known tells: that is no window, and no answer.
    cluster.view.pack_infos.clear();
    CHECK(restore_windows(cluster.view, "main").error().code == Errc::archived);
    cluster.view.clock_is_archived = false;
}

TEST_CASE("a quiet moment is known from an older base where the WAL of the last commit expired") {
    Cluster cluster;
    cluster.add_base("base2", 0x2000800, 0x2000900, 150);
    cluster.commit(600, 0x1000080, at(10));
    expire(cluster, 0x1000000, 0x2000000);
    auto stop = cluster.resolve_at(at(120));
    REQUIRE_MESSAGE(stop, stop.error().message);
    CHECK(stop->base.backup_id() == "base2");
    CHECK(cluster.failure(to_utc_text(at(90))) == Errc::outside_window);
}

TEST_CASE("without a complete base nothing can be restored") {
    Cluster cluster;
    cluster.ten_commits();
    cluster.view.backup_infos.clear();
    CHECK(cluster.failure("latest") == Errc::outside_window);
}

}  // namespace
}  // namespace walvault::agent
