#include <algorithm>

#include "base/log.h"
#include "storage/index_holds.h"
#include "storage/index_retention.h"
#include "storage/lease.h"
#include "storage/pack_reader.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

// A lease that began so shortly after a condemnation may be older by the clock of this machine.
constexpr std::chrono::minutes kClocksDiffer{5};

// Who or what keeps a pack that is due; empty: nothing.
std::string keeper(const DeletionOrder& order, const CondemnedThere& condemned) {
    for (const Lease& lease : order.leases)
        if (lease.since <= condemned.at + kClocksDiffer) return lease.who;
    if (condemned.sequence > order.through_sequence)
        return "the copy on " + order.place + ", which does not know of it yet";
    if (!order.place.empty()) return "";
    const auto proved = order.proved.find(condemned.pack.path());
    for (const std::string& place : condemned.kept_at)
        if (proved == order.proved.end() ||
            std::ranges::find(proved->second, place) == proved->second.end())
            return "the copy on " + place + ", which is not proved yet";
    return "";
}

// As a reader of `place` sees them.
Result<std::vector<pb::BackupInfo>> backups_at(Index& index, const std::string& cluster,
                                               const std::string& place) {
    WV_TRY(auto all, index.backups(cluster));
    std::vector<pb::BackupInfo> there;
    for (pb::BackupInfo& backup : all) {
        WV_TRY(bool condemned,
               index.retention().is_base_condemned(cluster, backup.backup_id(), place));
        if (!condemned) there.push_back(std::move(backup));
    }
    return there;
}

template <class Sink>
Result<> each_to_go(const RetentionSurvey& survey, Sink sink) {
    for (std::size_t i = 0; i < survey.wal_packs.size(); ++i)
        if (!survey.plan.wal_packs[i].keep) WV_CHECK(sink(survey.wal_packs[i]));
    for (std::size_t i = 0; i < survey.base_packs.size(); ++i)
        if (!survey.base_verdicts[i].keep) WV_CHECK(sink(survey.base_packs[i]));
    return {};
}

}  // namespace

Result<bool> Repository::State::is_kept(const pb::PackInfo& pack, const std::string& place) {
    WV_TRY(auto condemned, index->retention().condemned_by(pack.path(), place));
    if (condemned) return false;
    if (pack.kind() != pb::PACK_KIND_WAL) {
        WV_TRY(auto known, index->pack(id_from<16>(pack.file_id())));
        return known.has_value();
    }
    WV_TRY(auto known, index->wal_pack_at(id_from<16>(pack.history_id()), Lsn{pack.start_lsn()}));
    return known && known->path() == pack.path();
}

Result<> Repository::State::require_as_surveyed(const RetentionSurvey& survey) {
    auto changed = [&]() -> Result<> {
        return fail(Errc::busy,
                    "nothing expires this time: \"" + survey.cluster +
                        "\" changed while retention looked at it",
                    "it looks again by itself, or ask again");
    };
    WV_TRY(auto current, index->current_history(survey.cluster));
    WV_TRY(auto histories, index->histories(survey.cluster));
    WV_TRY(auto backups, backups_at(*index, survey.cluster, survey.place));
    WV_TRY(auto holds, index->holds().all(survey.cluster));
    if (current != survey.current || histories.size() != survey.history_count ||
        backups.size() != survey.backups.size() ||
        !std::ranges::equal(holds, survey.holds, {}, &HoldRecord::id))
        return changed();
    for (std::size_t i = 0; i < backups.size(); ++i)
        if (backups[i].backup_id() != survey.backups[i].backup_id()) return changed();
    WV_CHECK(each_to_go(survey, [&](const pb::PackInfo& pack) -> Result<> {
        WV_TRY(bool kept, is_kept(pack, survey.place));
        return kept ? Result<>{} : changed();
    }));
    const bool bases = std::any_of(survey.base_verdicts.begin(), survey.base_verdicts.end(),
                                   [](const RetentionVerdict& verdict) { return !verdict.keep; });
    if (!bases) return {};
    // What runs may have found a chunk in a pack that is to go.
    WV_TRY(auto unfinished, index->unfinished_backups());
    return unfinished.empty() ? Result<>{} : changed();
}

Result<> Repository::condemn(const RetentionSurvey& survey) {
    WV_CHECK(state_->require_as_surveyed(survey));
    for (pb::Condemned& condemned : survey.condemned()) {
        pb::LedgerEntry entry;
        *entry.mutable_condemned() = std::move(condemned);
        WV_CHECK(state_->enter(std::move(entry)));
    }
    return {};
}

Result<std::string> Repository::place_hold(pb::HoldPlaced hold, const std::string& actor) {
    WV_CHECK(state_->catch_index_up());
    const std::string id = "H" + std::to_string(state_->ledger->head().sequence + 1);
    hold.set_hold_id(id);
    pb::LedgerEntry entry;
    entry.set_actor(actor);
    *entry.mutable_hold_placed() = std::move(hold);
    WV_CHECK(state_->enter(std::move(entry)));
    return id;
}

Result<> Repository::release_hold(pb::HoldReleased released, const std::string& actor) {
    WV_CHECK(state_->catch_index_up());
    WV_TRY(auto holds, state_->index->holds().all(released.cluster()));
    if (std::ranges::find(holds, released.hold_id(), &HoldRecord::id) == holds.end())
        return fail(Errc::not_found, "there is no hold " + released.hold_id(),
                    "walvault hold lists those there are");
    pb::LedgerEntry entry;
    entry.set_actor(actor);
    *entry.mutable_hold_released() = std::move(released);
    return state_->enter(std::move(entry));
}

Result<> Repository::add_place(const std::string& place, bool is_empty) {
    WV_CHECK(state_->catch_index_up());
    WV_TRY(const bool was_removed, state_->index->retention().was_removed(place));
    if (was_removed)
        return fail(Errc::refused, "the ledger says that the copy \"" + place + "\" is no more",
                    "what it says of that one must not be taken for this one: give it another "
                    "name, and an empty place");
    WV_TRY(auto known, state_->index->retention().tiers());
    const bool is_known = std::ranges::find(known, place) != known.end();
    if (is_known && is_empty)
        return fail(Errc::refused,
                    "the copy \"" + place + "\" is empty, and the ledger says that packs lie there",
                    "bring the right one back; or, if it is lost: take its table out of the "
                    "configuration, walvault repo remove " +
                        place + ", and add the empty place under another name");
    if (is_known) return {};
    pb::LedgerEntry entry;
    entry.mutable_place_added()->set_place(place);
    return state_->enter(std::move(entry));
}

Result<bool> Repository::keeps(const pb::PackInfo& pack, const std::string& place) {
    return state_->is_kept(pack, place);
}

Result<std::vector<std::string>> Repository::tiers() { return state_->index->retention().tiers(); }

Result<> Repository::remove_place(const std::string& place) {
    WV_CHECK(state_->catch_index_up());
    WV_TRY(auto known, state_->index->retention().tiers());
    if (std::ranges::find(known, place) == known.end())
        return fail(Errc::not_found, "the ledger knows no tier \"" + place + "\"");
    pb::LedgerEntry entry;
    entry.mutable_place_removed()->set_place(place);
    return state_->enter(std::move(entry));
}

Result<std::optional<std::uint64_t>> Repository::condemned_by(const std::string& path,
                                                              const std::string& place) {
    return state_->index->retention().condemned_by(path, place);
}

Result<bool> Repository::is_base_condemned(const std::string& cluster, const std::string& backup_id,
                                           const std::string& place) {
    return state_->index->retention().is_base_condemned(cluster, backup_id, place);
}

Result<> Repository::each_condemned(const std::string& place,
                                    const std::function<bool(CondemnedThere&)>& sink) {
    return state_->index->retention().each_condemned(place, sink);
}

Result<std::vector<CondemnedThere>> Repository::condemned(const std::string& place) {
    return state_->index->retention().condemned(place);
}

Result<> Repository::State::delete_pack(const CondemnedThere& condemned, const std::string& place) {
    const pb::PackInfo& pack = condemned.pack;
    // Of a base, so that no place of its chunks is left in the index; without it some are, and are
    // known to be nowhere.
    std::shared_ptr<const PackReader> reader;
    if (pack.kind() == pb::PACK_KIND_BASE && place.empty() && condemned.kept_at.empty())
        if (auto opened = PackReader::open(*store, pack, keyring)) reader = *opened;
    pb::LedgerEntry entry;
    entry.mutable_pack_deleted()->set_path(pack.path());
    entry.mutable_pack_deleted()->set_reason(condemned.reason);
    entry.mutable_pack_deleted()->set_place(place);
    WV_CHECK(enter(std::move(entry), reader ? Footers{&reader->footer()} : Footers{}));
    return place.empty() ? remove_object(pack.path()) : Result<>{};
}

Result<> Repository::State::remove_object(const std::string& path) {
    auto removed = store->remove(path);
    if (!removed && removed.error().code != Errc::not_found) return removed;
    return {};
}

Result<> Repository::State::finish_deletions() {
    WV_TRY(auto paths, index->retention().deleted_paths(""));
    if (paths.empty()) return {};
    const std::uint64_t through = ledger->head().sequence;
    for (const std::string& path : paths)
        WV_CHECK(remove_object(path));
    pb::LedgerEntry entry;
    entry.mutable_deletions_finished()->set_through_sequence(through);
    return enter(std::move(entry));
}

Result<Deletions> Repository::delete_condemned(const DeletionOrder& order) {
    Deletions done;
    WV_CHECK(state_->catch_index_up());
    const WallTime now = state_->clock.now();
    std::vector<CondemnedThere> due;
    WV_CHECK(state_->index->retention().each_condemned(order.place, [&](CondemnedThere& each) {
        const bool is_due =
            each.at + order.grace <= now && !(order.only_kept_elsewhere && each.kept_at.empty());
        const std::string kept_by = is_due ? keeper(order, each) : "";
        if (!kept_by.empty()) done.waits_for = kept_by;
        if (is_due && kept_by.empty() && due.size() == order.most) {
            done.more = true;
            return false;
        }
        if (is_due && kept_by.empty()) {
            due.push_back(std::move(each));
            return true;
        }
        ++done.condemned_count;
        done.condemned_bytes += each.pack.stored_bytes();
        return true;
    }));
    for (const CondemnedThere& each : due) {
        WV_CHECK(state_->delete_pack(each, order.place));
        ++done.pack_count;
        done.bytes += each.pack.stored_bytes();
    }
    if (!done.more && order.place.empty()) WV_CHECK(state_->finish_deletions());
    return done;
}

}  // namespace walvault::storage
