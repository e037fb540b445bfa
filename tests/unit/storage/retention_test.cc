#include "storage/retention.h"

#include <doctest/doctest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "storage/lineage.h"
#include "storage/repository_files.h"
#include "tests/support/stored_history.h"

namespace walvault::storage {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kSegment = 100;

WallTime at_second(std::int64_t second) { return WallTime(std::chrono::seconds(second)); }

struct Transaction {
    Id16 history{};
    Lsn lsn;
    WallTime at;
};

// A cluster that lives through commits, base backups, promotions, rolled-back disks, gaps and
// clocks that are set back; LSNs are small numbers.
struct World {
    RetentionFacts facts;
    std::vector<Transaction> transactions;
    std::int64_t clock = 1'790'000'000;
    Lsn lsn{1'000};
    Lsn pack_start{1'000};

    World() {
        facts.segment_bytes = kSegment;
        open_history(std::nullopt, lsn, lsn);
    }

    HistoryRecord& current() { return facts.histories.back(); }

    void open_history(std::optional<Id16> parent, Lsn start, Lsn fork) {
        HistoryRecord history;
        history.id[0] = static_cast<std::byte>(facts.histories.size() + 1);
        history.start_lsn = start;
        history.end_lsn = fork;
        history.parent = parent;
        history.fork_lsn = fork;
        facts.histories.push_back(history);
        facts.current = history.id;
        lsn = fork;
        pack_start = start;
    }

    void commit(std::uint64_t bytes) {
        lsn = lsn + 1 + bytes;
        transactions.push_back({current().id, lsn, at_second(clock)});
        lsn = lsn + 1;
        current().end_lsn = lsn;
        current().last_commit_at = std::max(current().last_commit_at, at_second(clock));
    }

    void close_pack() {
        if (pack_start == lsn) return;
        pb::PackInfo pack;
        pack.set_path(std::to_string(facts.wal_packs.size()));
        pack.set_history_id(text_of(current().id));
        pack.set_start_lsn(pack_start.value);
        pack.set_end_lsn(lsn.value);
        facts.wal_packs.push_back(pack);
        pack_start = lsn;
    }

    void backup(unsigned commits, std::int64_t seconds) {
        pb::BackupInfo base;
        base.set_backup_id("b" + std::to_string(facts.backups.size()));
        base.set_history_id(text_of(current().id));
        base.set_start_lsn(lsn.value);
        base.set_started_at_us(at_second(clock).time_since_epoch().count());
        for (unsigned i = 0; i < commits; ++i)
            commit(10);
        lsn = lsn + 5;
        current().end_lsn = lsn;
        clock += seconds;
        base.set_stop_lsn(lsn.value);
        base.set_stopped_at_us(at_second(clock).time_since_epoch().count());
        facts.backups.push_back(base);
    }

    // A promotion, or with `lost_bytes` a disk that was rolled back.
    void fork(std::uint64_t lost_bytes) {
        close_pack();
        const HistoryRecord parent = current();
        const Lsn fork{
            std::max(parent.fork_lsn.value, lsn.value - std::min(lost_bytes, lsn.value))};
        const Lsn start = std::max(fork.round_down(kSegment), parent.start_lsn);
        open_history(parent.id, start, fork);
        current().last_commit_at = parent.last_commit_at;
        std::vector<Transaction> copies;
        for (const Transaction& each : transactions)
            if (each.history == parent.id && each.lsn >= start && each.lsn < fork)
                copies.push_back({current().id, each.lsn, each.at});
        transactions.insert(transactions.end(), copies.begin(), copies.end());
    }

    void gap() {
        close_pack();
        open_history(std::nullopt, Lsn{lsn.value + 1'000}.round_down(kSegment),
                     Lsn{lsn.value + 1'000}.round_down(kSegment));
    }

    void quiet() { current().covered_until = std::max(current().covered_until, at_second(clock)); }

    void live(const std::vector<std::pair<int, int>>& deeds) {
        for (auto [deed, amount] : deeds) {
            if (facts.histories.size() > 100) break;
            if (deed < 35)
                commit(static_cast<std::uint64_t>(amount % 120));
            else if (deed < 60)
                clock += amount * 400;
            else if (deed < 70)
                quiet();
            else if (deed < 82)
                close_pack();
            else if (deed < 92)
                backup(static_cast<unsigned>(amount % 3), amount * 3);
            else if (deed < 94)
                fork(static_cast<std::uint64_t>(amount % 2 == 0 ? 0 : amount * 10));
            else if (deed < 96)
                gap();
            else if (deed < 98)
                clock -= amount * 60;
        }
        facts.now = at_second(clock);
        facts.first_after = [this](const Id16& history, WallTime at) -> Result<Lsn> {
            return first_after(everything(), history, at);
        };
    }

    std::vector<bool> everything() const { return std::vector<bool>(facts.wal_packs.size(), true); }

    std::vector<Stretch> lineage(const Id16& history) const {
        return must(
            lineage_from(history, [&](const Id16& id) -> Result<std::optional<pb::HistoryOpened>> {
                const HistoryRecord& record = *find(id);
                pb::HistoryOpened opened;
                opened.set_start_lsn(record.start_lsn.value);
                if (record.parent) opened.set_parent_id(text_of(*record.parent));
                return std::optional(opened);
            }));
    }
    const HistoryRecord* find(const Id16& id) const {
        return &*std::find_if(facts.histories.begin(), facts.histories.end(),
                              [&](const HistoryRecord& each) { return each.id == id; });
    }

    // What is left of a history's lineage: a stretch of bytes and transactions, in WAL order.
    struct Left {
        std::vector<std::pair<Lsn, Lsn>> ranges;  // joined
        std::vector<Transaction> transactions;
        std::vector<pb::BackupInfo> bases;
        Lsn first;

        bool covers(Lsn from, Lsn to) const {
            if (from >= to) return from >= first;
            return std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) {
                return range.first <= from && to <= range.second;
            });
        }
        Lsn first_after(WallTime at, Lsn end) const {
            for (const Transaction& each : transactions)
                if (each.at > at) return each.lsn;
            return end;
        }
    };

    Left left_of(const std::vector<bool>& kept, const std::vector<pb::BackupInfo>& backups,
                 const Id16& history) const {
        Left left;
        const auto stretches = lineage(history);
        left.first = stretches.front().from;
        for (const Stretch& stretch : stretches) {
            auto add = [&](Lsn from, Lsn to) {
                from = std::max(from, stretch.from);
                to = std::min(to, stretch.to);
                if (from >= to) return;
                if (!left.ranges.empty() && left.ranges.back().second == from)
                    left.ranges.back().second = to;
                else
                    left.ranges.emplace_back(from, to);
                for (const Transaction& each : transactions)
                    if (each.history == stretch.history && from <= each.lsn && each.lsn < to)
                        left.transactions.push_back(each);
            };
            for (std::size_t i = 0; i < kept.size(); ++i)
                if (kept[i] && facts.wal_packs[i].history_id() == text_of(stretch.history))
                    add(Lsn{facts.wal_packs[i].start_lsn()}, Lsn{facts.wal_packs[i].end_lsn()});
            if (stretch.history == *facts.current) add(pack_start, lsn);
        }
        std::sort(left.transactions.begin(), left.transactions.end(),
                  [](const auto& a, const auto& b) { return a.lsn < b.lsn; });
        left.bases = bases_on_path(*find(history), facts.histories, backups);
        return left;
    }

    Lsn first_after(const std::vector<bool>& kept, const Id16& history, WallTime at) const {
        return left_of(kept, {}, history).first_after(at, find(history)->end_lsn);
    }

    // What a resolver says of a moment: the newest base before the cut, all WAL from it to the cut,
    // and, where that base began later, nothing unknown between the moment and it.
    static bool is_restorable(const Left& left, const HistoryRecord& history, WallTime moment) {
        const Lsn cut = left.first_after(moment, history.end_lsn);
        const pb::BackupInfo* base = nullptr;
        std::optional<Lsn> known_from;
        for (const pb::BackupInfo& each : left.bases) {
            if (Lsn{each.stop_lsn()} > cut) break;
            base = &each;
            if (WallTime(Micros(each.started_at_us())) <= moment)
                known_from = Lsn{each.start_lsn()};
        }
        if (base == nullptr) return false;
        const Lsn start{base->start_lsn()};
        if (moment < WallTime(Micros(base->started_at_us()))) {
            for (const Transaction& each : left.transactions)
                if (each.lsn < cut) known_from = std::max(known_from.value_or(Lsn{}), each.lsn);
            if (!known_from) return false;
            if (*known_from < start && !left.covers(*known_from, start)) return false;
        }
        const Lsn needed = std::max(Lsn{base->stop_lsn()}, std::min(cut, history.end_lsn));
        return left.covers(std::max(start.round_down(kSegment), left.first), needed);
    }
};

std::vector<bool> kept_of(const std::vector<RetentionVerdict>& verdicts) {
    std::vector<bool> kept;
    for (const RetentionVerdict& verdict : verdicts) {
        CHECK(!verdict.reason.empty());
        kept.push_back(verdict.keep);
    }
    return kept;
}

std::vector<pb::BackupInfo> only(const std::vector<pb::BackupInfo>& backups,
                                 const std::vector<bool>& kept) {
    std::vector<pb::BackupInfo> left;
    for (std::size_t i = 0; i < backups.size(); ++i)
        if (kept[i]) left.push_back(backups[i]);
    return left;
}

using Deeds = std::vector<std::pair<int, int>>;

rc::Gen<Deeds> any_deeds() {
    return rc::gen::container<Deeds>(
        rc::gen::pair(rc::gen::inRange(0, 98), rc::gen::inRange(1, 100)));
}

RetentionRules some_rules(std::chrono::seconds window) {
    RetentionRules rules;
    rules.window = window;
    rules.protect_min = 1;
    rules.then = {{RetentionPeriods::Unit::day, 2}, {RetentionPeriods::Unit::month, 1}};
    return rules;
}

TEST_CASE("every second of the window that could be restored before can be restored after") {
    const bool holds = rc::check([] {
        World world;
        world.live(*rc::gen::scale(4.0, any_deeds()));
        const auto window = std::chrono::seconds(*rc::gen::inRange(1, 400'000));
        RetentionRules rules = some_rules(window);
        if (*rc::gen::arbitrary<bool>()) rules.then.clear();
        auto planned = plan_retention(rules, world.facts);
        if (!planned) {
            RC_ASSERT(planned.error().code == Errc::refused);
            return;
        }
        RC_ASSERT(planned->backups.size() == world.facts.backups.size());
        RC_ASSERT(planned->wal_packs.size() == world.facts.wal_packs.size());
        const auto packs = kept_of(planned->wal_packs);
        const auto bases = only(world.facts.backups, kept_of(planned->backups));
        RC_TAG(std::count(packs.begin(), packs.end(), false) > 0 ? "WAL expired" : "all stays");
        const WallTime from = planned->window_from.value_or(WallTime{});
        std::vector<WallTime> moments{from, from + 1s, world.facts.now};
        for (const Transaction& each : world.transactions)
            for (auto moment : {each.at - Micros(1), each.at, each.at + 1s})
                moments.push_back(moment);
        for (const pb::BackupInfo& base : world.facts.backups)
            for (auto at : {base.started_at_us(), base.stopped_at_us()})
                moments.push_back(WallTime(Micros(at)));
        for (const HistoryRecord& history : world.facts.histories) {
            const auto before = world.left_of(world.everything(), world.facts.backups, history.id);
            const auto after = world.left_of(packs, bases, history.id);
            const WallTime until = std::max(history.covered_until, history.last_commit_at);
            for (WallTime moment : moments) {
                if (moment < from || moment > until) continue;
                if (World::is_restorable(before, history, moment))
                    RC_ASSERT(World::is_restorable(after, history, moment));
            }
            // Each base that stays can be made consistent along its own history.
            for (const pb::BackupInfo& base : bases)
                if (base.history_id() == text_of(history.id))
                    RC_ASSERT(!before.covers(Lsn{base.start_lsn()}, Lsn{base.stop_lsn()}) ||
                              after.covers(Lsn{base.start_lsn()}, Lsn{base.stop_lsn()}));
        }
    });
    CHECK(holds);
}

TEST_CASE("a longer window keeps everything that a shorter one keeps") {
    const bool holds = rc::check([] {
        World world;
        world.live(*rc::gen::scale(4.0, any_deeds()));
        const int shorter = *rc::gen::inRange(1, 300'000);
        const int longer = shorter + *rc::gen::inRange(0, 300'000);
        auto less = plan_retention(some_rules(std::chrono::seconds(shorter)), world.facts);
        auto more = plan_retention(some_rules(std::chrono::seconds(longer)), world.facts);
        RC_ASSERT(less.has_value() == more.has_value());
        if (!less) return;
        for (std::size_t i = 0; i < less->backups.size(); ++i)
            RC_ASSERT(!less->backups[i].keep || more->backups[i].keep);
        for (std::size_t i = 0; i < less->wal_packs.size(); ++i)
            RC_ASSERT(!less->wal_packs[i].keep || more->wal_packs[i].keep);
    });
    CHECK(holds);
}

TEST_CASE("each moment that is held can be restored while the window moves on") {
    const bool holds = rc::check([] {
        World world;
        world.live(*rc::gen::scale(4.0, any_deeds()));
        const auto any_base = [&] {
            const int number =
                *rc::gen::inRange<int>(0, static_cast<int>(world.facts.backups.size()));
            return world.facts.backups[static_cast<std::size_t>(number)];
        };
        if (world.facts.backups.empty()) return;
        const pb::BackupInfo anchor = any_base();
        HoldRecord hold{.id = "H1", .reason = "a test"};
        hold.from = WallTime(Micros(anchor.stopped_at_us())) +
                    std::chrono::seconds(*rc::gen::inRange(0, 40'000));
        if (*rc::gen::inRange(0, 4) > 0)
            hold.to = *hold.from + std::chrono::seconds(*rc::gen::inRange(0, 200'000));
        const pb::BackupInfo alone = any_base();
        world.facts.holds = {hold, {.id = "H2", .backup_id = alone.backup_id(), .reason = "too"}};
        RetentionRules rules = some_rules(1s);
        rules.then.clear();
        auto planned = plan_retention(rules, world.facts);
        if (!planned) return;
        const auto packs = kept_of(planned->wal_packs);
        const auto bases = only(world.facts.backups, kept_of(planned->backups));
        RC_TAG(std::count(packs.begin(), packs.end(), false) > 0 ? "WAL expired" : "all stays");
        RC_ASSERT(std::ranges::any_of(bases, [&](const pb::BackupInfo& base) {
            return base.backup_id() == alone.backup_id();
        }));
        std::vector<WallTime> moments{*hold.from, hold.to.value_or(world.facts.now)};
        for (const Transaction& each : world.transactions)
            for (auto moment : {each.at - Micros(1), each.at, each.at + 1s})
                moments.push_back(moment);
        for (const HistoryRecord& history : world.facts.histories) {
            const auto before = world.left_of(world.everything(), world.facts.backups, history.id);
            const auto after = world.left_of(packs, bases, history.id);
            const Lsn cut = before.first_after(*hold.from, history.end_lsn);
            const bool anchored = std::ranges::any_of(before.bases, [&](const auto& base) {
                return WallTime(Micros(base.stopped_at_us())) <= *hold.from &&
                       Lsn{base.stop_lsn()} <= cut;
            });
            const WallTime until = std::max(history.covered_until, history.last_commit_at);
            if (!anchored) continue;
            for (WallTime moment : moments) {
                if (moment < *hold.from || moment > until || (hold.to && moment > *hold.to))
                    continue;
                if (World::is_restorable(before, history, moment))
                    RC_ASSERT(World::is_restorable(after, history, moment));
            }
        }
    });
    CHECK(holds);
}

// One base a day at noon and a pack an hour, over `days`; the last moment is noon of the last day.
World steady_life(int days) {
    World world;
    world.clock = 1'788'264'000;  // 2026-09-01 12:00 UTC
    for (int day = 0; day < days; ++day) {
        world.backup(1, 60);
        for (int hour = 0; hour < 24 && day + 1 < days; ++hour) {
            world.clock += hour == 23 ? 3'540 : 3'600;
            world.commit(50);
            world.close_pack();
        }
    }
    world.live({});
    return world;
}

TEST_CASE("what lies before the window goes, but for the anchor and what the rules name") {
    World world = steady_life(40);
    RetentionRules rules;
    rules.window = 10 * 24h;
    rules.protect_min = 2;
    RetentionPlan plan = must(plan_retention(rules, world.facts));
    auto kept = kept_of(plan.backups);
    // The window begins at noon of day 29: the base of that noon ends a minute later.
    for (std::size_t day = 0; day < 40; ++day) {
        CAPTURE(day);
        CHECK(kept[day] == (day >= 29));
    }
    CHECK(plan.backups[29].reason == "the window begins behind it");
    CHECK(plan.backups[30].reason == "in the window");
    for (std::size_t i = 0; i < world.facts.wal_packs.size(); ++i) {
        const bool needed = world.facts.wal_packs[i].end_lsn() >
                            Lsn{world.facts.backups[29].start_lsn()}.round_down(kSegment).value;
        CHECK(plan.wal_packs[i].keep == needed);
    }

    // The window begins on Thursday 2026-10-01 at 12:01, a minute behind the base of that day.
    rules.then = {{RetentionPeriods::Unit::day, 3},
                  {RetentionPeriods::Unit::week, 3},
                  {RetentionPeriods::Unit::month, 2}};
    world.facts.now = WallTime(Micros(world.facts.backups[30].stopped_at_us())) + 10 * 24h;
    world.facts.histories.back().covered_until = world.facts.now;
    plan = must(plan_retention(rules, world.facts));
    kept = kept_of(plan.backups);
    // Days: 30 (that day), 29, 28. Weeks end on Sundays, 2026-09-20 and 27: 19 and 26. Month: 29.
    for (std::size_t day = 0; day < 40; ++day) {
        CAPTURE(day);
        CHECK(kept[day] == (day >= 28 || day == 26 || day == 19));
    }
    CHECK(plan.backups[26].reason == "the newest of its week");
    std::size_t islands = 0;
    for (std::size_t i = 0; i < world.facts.wal_packs.size(); ++i)
        if (plan.wal_packs[i].keep &&
            world.facts.wal_packs[i].end_lsn() <= world.facts.backups[28].start_lsn())
            ++islands;
    CHECK(islands > 0);
    CHECK(islands <= 12);  // of some 680: what the segments of two short backups lie in
}

TEST_CASE("a hold keeps what it covers and no more, until it is released or over") {
    World world = steady_life(40);
    RetentionRules rules;
    rules.window = 10 * 24h;
    const auto noon = [&](std::size_t day) {
        return WallTime(Micros(world.facts.backups[day].stopped_at_us()));
    };
    const RetentionPlan without = must(plan_retention(rules, world.facts));
    // From the evening of day 5 to the morning of day 8.
    world.facts.holds = {
        {.id = "H9", .from = noon(5) + 6h, .to = noon(7) + 20h, .reason = "court"}};
    const RetentionPlan held = must(plan_retention(rules, world.facts));
    for (std::size_t day = 0; day < 40; ++day) {
        CAPTURE(day);
        CHECK(held.backups[day].keep == (day >= 29 || (day >= 5 && day <= 7)));
    }
    CHECK(held.backups[6].reason == "held by H9: court");
    const Lsn from = Lsn{world.facts.backups[5].start_lsn()}.round_down(kSegment);
    const Lsn behind = must(world.facts.first_after(world.current().id, noon(7) + 20h));
    for (std::size_t i = 0; i < world.facts.wal_packs.size(); ++i) {
        const pb::PackInfo& pack = world.facts.wal_packs[i];
        CAPTURE(i);
        if (without.wal_packs[i].keep)
            CHECK(held.wal_packs[i].keep);
        else if (from.value < pack.end_lsn() && pack.start_lsn() < behind.value)
            CHECK(held.wal_packs[i].keep);
        else if (pack.start_lsn() > behind.value + 2 * kSegment || pack.end_lsn() <= from.value)
            CHECK(!held.wal_packs[i].keep);
    }
    world.facts.holds.front().until = world.facts.now;
    const RetentionPlan over = must(plan_retention(rules, world.facts));
    CHECK(kept_of(over.backups) == kept_of(without.backups));
    CHECK(kept_of(over.wal_packs) == kept_of(without.wal_packs));
    // Without an end every base since is held, and all WAL.
    world.facts.holds.front().until.reset();
    world.facts.holds.front().to.reset();
    const RetentionPlan open = must(plan_retention(rules, world.facts));
    for (std::size_t day = 0; day < 40; ++day)
        CHECK(open.backups[day].keep == (day >= 5));
}

TEST_CASE("nothing expires without a window, without an older base, or by a clock that ran away") {
    World world = steady_life(20);
    RetentionRules rules;
    auto all_stay = [&](const RetentionPlan& plan) {
        const auto keeps = [](const RetentionVerdict& verdict) { return verdict.keep; };
        return std::all_of(plan.backups.begin(), plan.backups.end(), keeps) &&
               std::all_of(plan.wal_packs.begin(), plan.wal_packs.end(), keeps);
    };
    CHECK(all_stay(must(plan_retention(rules, world.facts))));
    rules.window = 30 * 24h;
    CHECK(all_stay(must(plan_retention(rules, world.facts))));
    rules.window = 5 * 24h;
    const RetentionPlan before = must(plan_retention(rules, world.facts));
    CHECK(!all_stay(before));
    // An hour ahead of everything stored: the window does not move with it.
    world.facts.now += 23h;
    CHECK(must(plan_retention(rules, world.facts)).window_from == before.window_from);
    world.facts.now += 2h;
    auto refused = plan_retention(rules, world.facts);
    REQUIRE(!refused);
    CHECK(refused.error().code == Errc::refused);
    CHECK(refused.error().message.find("clock") != std::string::npos);
}

TEST_CASE("a history that was left expires; its newest base and what is held do not") {
    World world = steady_life(5);
    world.close_pack();
    const Id16 left = world.current().id;
    world.gap();
    for (int day = 0; day < 20; ++day) {
        world.clock += 86'400;
        world.backup(1, 60);
        world.commit(50);
        world.close_pack();
    }
    world.live({});
    RetentionRules rules;
    rules.window = 5 * 24h;
    RetentionPlan plan = must(plan_retention(rules, world.facts));
    for (std::size_t i = 0; i < 5; ++i)
        CHECK(!plan.backups[i].keep);
    for (std::size_t i = 0; i < world.facts.wal_packs.size(); ++i)
        if (world.facts.wal_packs[i].history_id() == text_of(left)) CHECK(!plan.wal_packs[i].keep);
    world.facts.holds.push_back({.id = "H7", .backup_id = "b3", .reason = "the audit"});
    plan = must(plan_retention(rules, world.facts));
    CHECK(plan.backups[3].reason == "held by H7: the audit");
    CHECK(!plan.backups[2].keep);
    rules.protect_min = 22;
    CHECK(must(plan_retention(rules, world.facts)).backups[4].keep);
}

}  // namespace
}  // namespace walvault::storage
