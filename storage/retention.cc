#include "storage/retention.h"

#include <algorithm>
#include <map>

#include "storage/lineage.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

constexpr std::chrono::hours kClockMayLead{24};

WallTime stopped_at(const pb::BackupInfo& base) { return WallTime(Micros(base.stopped_at_us())); }
WallTime until_of(const HistoryRecord& history) {
    return std::max(history.covered_until, history.last_commit_at);
}

// The number of the day, week or month that `at` lies in.
std::int64_t period_of(RetentionPeriods::Unit unit, WallTime at) {
    const std::chrono::sys_days day = std::chrono::floor<std::chrono::days>(at);
    const std::int64_t number = day.time_since_epoch().count();
    switch (unit) {
        case RetentionPeriods::Unit::day:
            return number;
        case RetentionPeriods::Unit::week:  // 1970-01-01 was a Thursday
            return (number + 3 - ((number + 3) % 7 + 7) % 7) / 7;
        case RetentionPeriods::Unit::month:
            break;
    }
    const std::chrono::year_month_day date(day);
    return static_cast<int>(date.year()) * 12 + static_cast<unsigned>(date.month()) - 1;
}

const char* name_of(RetentionPeriods::Unit unit) {
    switch (unit) {
        case RetentionPeriods::Unit::day:
            return "day";
        case RetentionPeriods::Unit::week:
            return "week";
        case RetentionPeriods::Unit::month:
            break;
    }
    return "month";
}

class Planner {
public:
    Planner(const RetentionRules& rules, const RetentionFacts& facts)
        : rules_(rules), facts_(facts), kept_(facts.backups.size()) {}

    Result<RetentionPlan> plan() {
        WallTime seen{};
        for (const HistoryRecord& history : facts_.histories)
            seen = std::max(seen, until_of(history));
        for (const pb::BackupInfo& base : facts_.backups)
            seen = std::max(seen, stopped_at(base));
        if (rules_.window.count() == 0) return keep_everything("no window is set");
        if (seen == WallTime{}) return keep_everything("nothing stored has a time yet");
        if (facts_.now > seen + kClockMayLead)
            return fail(Errc::refused,
                        "nothing expires: it is " + to_utc_text(facts_.now) +
                            " by this machine's clock, and the latest moment that is stored is " +
                            to_utc_text(seen),
                        "check the clock; if it is right, retention goes on when WAL comes in "
                        "again");
        from_ = std::min(facts_.now, seen) - rules_.window;
        for (const HistoryRecord& history : facts_.histories)
            WV_CHECK(keep_window(history));
        WV_CHECK(keep_periods());
        WV_CHECK(keep_newest());
        WV_CHECK(keep_held());
        return verdicts();
    }

private:
    struct Needed {
        Lsn from;
        Lsn to;
        std::string reason;
    };

    RetentionPlan keep_everything(const char* reason) const {
        RetentionPlan plan;
        plan.backups.assign(facts_.backups.size(), {.keep = true, .reason = reason});
        plan.wal_packs.assign(facts_.wal_packs.size(), {.keep = true, .reason = reason});
        return plan;
    }

    const HistoryRecord* find(const Id16& id) const {
        auto found = std::find_if(facts_.histories.begin(), facts_.histories.end(),
                                  [&](const HistoryRecord& each) { return each.id == id; });
        return found == facts_.histories.end() ? nullptr : &*found;
    }

    const std::vector<pb::BackupInfo>& bases_of(const HistoryRecord& history) {
        auto known = paths_.find(history.id);
        if (known == paths_.end())
            known =
                paths_.emplace(history.id, bases_on_path(history, facts_.histories, facts_.backups))
                    .first;
        return known->second;
    }

    Result<std::vector<Stretch>> lineage(const Id16& history) const {
        return lineage_from(history,
                            [&](const Id16& id) -> Result<std::optional<pb::HistoryOpened>> {
                                const HistoryRecord* record = find(id);
                                if (record == nullptr) return std::optional<pb::HistoryOpened>{};
                                pb::HistoryOpened opened;
                                opened.set_start_lsn(record->start_lsn.value);
                                if (record->parent) opened.set_parent_id(text_of(*record->parent));
                                return std::optional<pb::HistoryOpened>(std::move(opened));
                            });
    }

    // [from, to) of the lineage, in whole segments: PostgreSQL reads those.
    Result<> need(const Id16& history, Lsn from, Lsn to, const std::string& reason) {
        from = from.round_down(facts_.segment_bytes);
        if (to != kOpenEndLsn)
            to = (to + (facts_.segment_bytes - 1)).round_down(facts_.segment_bytes);
        return need_bytes(history, from, to, reason);
    }

    Result<> need_bytes(const Id16& history, Lsn from, Lsn to, const std::string& reason) {
        WV_TRY(auto stretches, lineage(history));
        for (const Stretch& stretch : stretches)
            if (stretch.from < to && from < stretch.to)
                needed_[stretch.history].push_back(
                    {std::max(from, stretch.from), std::min(to, stretch.to), reason});
        return {};
    }

    void keep(std::size_t base, const std::string& reason) {
        if (kept_[base].empty()) kept_[base] = reason;
    }

    // The base and the WAL that makes it consistent, along every history that it can be restored
    // in.
    Result<> keep_alone(std::size_t number, const std::string& reason) {
        const pb::BackupInfo& base = facts_.backups[number];
        keep(number, reason);
        for (const HistoryRecord& history : facts_.histories) {
            const auto& bases = bases_of(history);
            const bool on_path = std::any_of(bases.begin(), bases.end(), [&](const auto& each) {
                return each.backup_id() == base.backup_id();
            });
            if (on_path)
                WV_CHECK(need(history.id, Lsn{base.start_lsn()}, Lsn{base.stop_lsn()},
                              "base " + base.backup_id() + " needs it"));
        }
        return {};
    }

    std::size_t number_of(const pb::BackupInfo& base) const {
        auto found = std::find_if(
            facts_.backups.begin(), facts_.backups.end(),
            [&](const pb::BackupInfo& each) { return each.backup_id() == base.backup_id(); });
        return static_cast<std::size_t>(found - facts_.backups.begin());
    }

    // The newest base that `moment`, and what follows, can be restored from.
    Result<std::optional<std::size_t>> anchor_of(const HistoryRecord& history, WallTime moment) {
        const auto& bases = bases_of(history);
        WV_TRY(const Lsn cut, facts_.first_after(history.id, moment));
        std::optional<std::size_t> anchor;
        for (std::size_t i = 0; i < bases.size(); ++i)
            if (stopped_at(bases[i]) <= moment && Lsn{bases[i].stop_lsn()} <= cut) anchor = i;
        return anchor;
    }

    Result<> keep_window(const HistoryRecord& history) {
        const bool followed = facts_.current && *facts_.current == history.id;
        if (!followed && until_of(history) < from_) return {};
        const WallTime begin = followed ? std::min(from_, until_of(history)) : from_;
        const auto& bases = bases_of(history);
        WV_TRY(const auto anchor, anchor_of(history, begin));
        if (followed && !bases.empty()) restorable_from_ = stopped_at(bases[anchor.value_or(0)]);
        if (!anchor) return keep_whole(history, bases);
        Lsn from = kOpenEndLsn;
        for (std::size_t i = *anchor; i < bases.size(); ++i)
            from = std::min(from, Lsn{bases[i].start_lsn()});
        WV_CHECK(need(history.id, from, kOpenEndLsn,
                      "the window needs it, from base " + bases[*anchor].backup_id() + " on"));
        // A clock that was set back can put a base of the window before the anchor.
        for (std::size_t i = 0; i < bases.size(); ++i)
            if (i >= *anchor || stopped_at(bases[i]) > begin)
                WV_CHECK(keep_alone(number_of(bases[i]), i == *anchor
                                                             ? "the window begins behind it"
                                                             : "in the window"));
        return {};
    }

    Result<> keep_whole(const HistoryRecord& history, const std::vector<pb::BackupInfo>& bases) {
        WV_CHECK(need(history.id, Lsn{}, kOpenEndLsn, "no base is older than the window"));
        for (const pb::BackupInfo& base : bases)
            WV_CHECK(keep_alone(number_of(base), "no base is older than the window"));
        return {};
    }

    // A base of a history that ended before the window counts too.
    bool is_before_window(const pb::BackupInfo& base) const {
        if (stopped_at(base) <= from_) return true;
        const HistoryRecord* history = find(id_from<16>(base.history_id()));
        return history == nullptr || until_of(*history) < from_;
    }

    Result<> keep_periods() {
        for (const RetentionPeriods& rule : rules_.then) {
            const std::int64_t last = period_of(rule.unit, from_);
            std::map<std::int64_t, std::size_t> newest;
            for (std::size_t i = 0; i < facts_.backups.size(); ++i) {
                if (!is_before_window(facts_.backups[i])) continue;
                const std::int64_t period = period_of(rule.unit, stopped_at(facts_.backups[i]));
                if (last - period >= static_cast<std::int64_t>(rule.count)) continue;
                auto [place, first] = newest.emplace(period, i);
                if (!first &&
                    stopped_at(facts_.backups[place->second]) < stopped_at(facts_.backups[i]))
                    place->second = i;
            }
            for (const auto& [period, base] : newest)
                WV_CHECK(keep_alone(base, std::string("the newest of its ") + name_of(rule.unit)));
        }
        return {};
    }

    Result<> keep_newest() {
        std::vector<std::size_t> order(facts_.backups.size());
        for (std::size_t i = 0; i < order.size(); ++i)
            order[i] = i;
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return stopped_at(facts_.backups[a]) > stopped_at(facts_.backups[b]);
        });
        if (order.size() > rules_.protect_min) order.resize(rules_.protect_min);
        for (std::size_t base : order)
            WV_CHECK(keep_alone(base, "one of the newest " + std::to_string(rules_.protect_min)));
        return {};
    }

    Result<> keep_held() {
        for (const HoldRecord& hold : facts_.holds) {
            if (hold.is_over(facts_.now)) continue;
            const std::string reason = "held by " + hold.id + ": " + hold.reason;
            for (std::size_t i = 0; i < facts_.backups.size(); ++i)
                if (!hold.backup_id.empty() && facts_.backups[i].backup_id() == hold.backup_id)
                    WV_CHECK(keep_alone(i, reason));
            if (!hold.from) continue;
            for (const HistoryRecord& history : facts_.histories)
                WV_CHECK(keep_moments(history, hold, reason));
        }
        return {};
    }

    Result<> keep_moments(const HistoryRecord& history, const HoldRecord& hold,
                          const std::string& reason) {
        if (until_of(history) < *hold.from) return {};
        const auto& bases = bases_of(history);
        WV_TRY(const auto anchor, anchor_of(history, *hold.from));
        Lsn end = kOpenEndLsn;
        if (hold.to) {
            WV_TRY(end, facts_.first_after(history.id, *hold.to));
        }
        Lsn from = kOpenEndLsn;
        for (std::size_t i = 0; i < bases.size(); ++i) {
            const WallTime at = stopped_at(bases[i]);
            const bool ended = !hold.to || (at <= *hold.to && Lsn{bases[i].stop_lsn()} <= end);
            const bool counts = ended && (!anchor || i >= *anchor || at > *hold.from);
            if (!counts) continue;
            if (i >= anchor.value_or(0)) from = std::min(from, Lsn{bases[i].start_lsn()});
            WV_CHECK(keep_alone(number_of(bases[i]), reason));
        }
        if (from == kOpenEndLsn) return {};
        // A segment more: that transaction's record is to be found, and may go on in the next.
        WV_TRY(const auto hole, hole_before(history.id, from, end));
        return hole ? need_bytes(history.id, from.round_down(facts_.segment_bytes), *hole, reason)
                    : need(history.id, from, hold.to ? end + facts_.segment_bytes : end, reason);
    }

    // Where the pack that holds `lsn` starts, if what was before it is not here: then it may not be
    // the first transaction behind a moment that lies in it.
    Result<std::optional<Lsn>> hole_before(const Id16& history, Lsn from, Lsn lsn) const {
        WV_TRY(auto stretches, lineage(history));
        const pb::PackInfo* holder = nullptr;
        const auto is_in = [&](const pb::PackInfo& pack, Lsn at) {
            return std::ranges::any_of(stretches, [&](const Stretch& stretch) {
                return pack.history_id() == text_of(stretch.history) && stretch.from <= at &&
                       at < stretch.to;
            });
        };
        for (const pb::PackInfo& pack : facts_.wal_packs)
            if (pack.start_lsn() <= lsn.value && lsn.value < pack.end_lsn() && is_in(pack, lsn))
                holder = &pack;
        if (holder == nullptr || holder->start_lsn() <= from.value) return std::optional<Lsn>{};
        const Lsn last{holder->start_lsn() - 1};
        for (const pb::PackInfo& pack : facts_.wal_packs)
            if (pack.start_lsn() <= last.value && last.value < pack.end_lsn() && is_in(pack, last))
                return std::optional<Lsn>{};
        return std::optional<Lsn>(Lsn{holder->start_lsn()});
    }

    RetentionPlan verdicts() const {
        RetentionPlan plan;
        plan.window_from = from_;
        plan.restorable_from = restorable_from_;
        for (const std::string& reason : kept_)
            plan.backups.push_back(
                reason.empty()
                    ? RetentionVerdict{false, "older than the window, and no rule keeps it"}
                    : RetentionVerdict{true, reason});
        for (const pb::PackInfo& pack : facts_.wal_packs)
            plan.wal_packs.push_back(verdict_of(pack));
        return plan;
    }

    RetentionVerdict verdict_of(const pb::PackInfo& pack) const {
        const Id16 history = id_from<16>(pack.history_id());
        if (find(history) == nullptr) return {true, "its history is not known"};
        if (auto needed = needed_.find(history); needed != needed_.end())
            for (const Needed& range : needed->second)
                if (range.from.value < pack.end_lsn() && pack.start_lsn() < range.to.value)
                    return {true, range.reason};
        return {false, "no base that is kept needs it"};
    }

    const RetentionRules& rules_;
    const RetentionFacts& facts_;
    WallTime from_;
    std::optional<WallTime> restorable_from_;
    std::vector<std::string> kept_;  // why each base stays; empty: it does not
    std::map<Id16, std::vector<pb::BackupInfo>> paths_;
    std::map<Id16, std::vector<Needed>> needed_;
};

}  // namespace

Result<RetentionPlan> plan_retention(const RetentionRules& rules, const RetentionFacts& facts) {
    WV_ASSERT(facts.segment_bytes > 0);
    return Planner(rules, facts).plan();
}

}  // namespace walvault::storage
