#include <algorithm>

#include "base/log.h"
#include "storage/index_retention.h"
#include "storage/lease.h"
#include "storage/pack_reader.h"
#include "storage/repository_state.h"

namespace walvault::storage {
namespace {

// A lease that began so shortly after a condemnation may be older by the clock of this machine.
constexpr std::chrono::minutes kClocksDiffer{5};

const Lease* holder(const std::vector<Lease>& leases, const pb::CondemnedPack& pack) {
    for (const Lease& lease : leases)
        if (lease.since <= WallTime(Micros(pack.at_us())) + kClocksDiffer) return &lease;
    return nullptr;
}

}  // namespace

Result<> Repository::State::require_as_surveyed(const RetentionSurvey& survey) {
    auto changed = [&] {
        return fail(Errc::busy,
                    "nothing expires this time: \"" + survey.cluster +
                        "\" changed while retention looked at it",
                    "it looks again by itself, or ask again");
    };
    WV_TRY(auto current, index->current_history(survey.cluster));
    WV_TRY(auto histories, index->histories(survey.cluster));
    WV_TRY(auto backups, index->backups(survey.cluster));
    if (current != survey.current || histories.size() != survey.history_count ||
        backups.size() != survey.backups.size())
        return changed();
    for (std::size_t i = 0; i < backups.size(); ++i)
        if (backups[i].backup_id() != survey.backups[i].backup_id()) return changed();
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

Result<> Repository::State::delete_pack(const pb::CondemnedPack& condemned) {
    // Of a base, so that no place of its chunks is left in the index; without it some are, and are
    // known to be nowhere.
    std::shared_ptr<const PackReader> reader;
    if (condemned.pack().kind() == pb::PACK_KIND_BASE)
        if (auto opened = PackReader::open(*store, condemned.pack(), keyring)) reader = *opened;
    pb::LedgerEntry entry;
    entry.mutable_pack_deleted()->set_path(condemned.pack().path());
    entry.mutable_pack_deleted()->set_reason(condemned.reason());
    WV_CHECK(enter(std::move(entry), reader ? Footers{&reader->footer()} : Footers{}));
    return remove_object(condemned.pack().path());
}

Result<> Repository::State::remove_object(const std::string& path) {
    auto removed = store->remove(path);
    if (!removed && removed.error().code != Errc::not_found) return removed;
    return {};
}

Result<> Repository::State::finish_deletions() {
    WV_TRY(auto paths, index->retention().deleted_paths());
    if (paths.empty()) return {};
    const std::uint64_t through = ledger->head().sequence;
    for (const std::string& path : paths)
        WV_CHECK(remove_object(path));
    pb::LedgerEntry entry;
    entry.mutable_deletions_finished()->set_through_sequence(through);
    return enter(std::move(entry));
}

Result<Deletions> Repository::delete_condemned(std::chrono::seconds grace, std::size_t most) {
    Deletions done;
    WV_CHECK(state_->catch_index_up());
    WV_TRY(auto condemned, state_->index->retention().condemned());
    const WallTime now = state_->clock.now();
    WV_TRY(auto leases, valid_leases(*state_->store, now));
    for (const pb::CondemnedPack& pack : condemned) {
        const std::uint64_t bytes = pack.pack().stored_bytes();
        const Lease* held_by = holder(leases, pack);
        const bool due = WallTime(Micros(pack.at_us())) + grace <= now;
        if (due && held_by != nullptr) done.waits_for = held_by->who;
        if (due && held_by == nullptr && done.pack_count < most) {
            WV_CHECK(state_->delete_pack(pack));
            ++done.pack_count;
            done.bytes += bytes;
            continue;
        }
        if (due && held_by == nullptr) done.more = true;
        ++done.condemned_count;
        done.condemned_bytes += bytes;
    }
    if (!done.more) WV_CHECK(state_->finish_deletions());
    return done;
}

}  // namespace walvault::storage
