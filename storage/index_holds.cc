#include "storage/index_holds.h"

#include <rocksdb/iterator.h>

#include <algorithm>

namespace walvault::storage {
namespace {

std::string prefix_of(const std::string& cluster) { return "hold/" + cluster + "/"; }

std::optional<WallTime> time_of(std::int64_t micros) {
    if (micros == 0) return {};
    return WallTime(Micros(micros));
}

HoldRecord record_of(const pb::StoredHold& stored) {
    const pb::HoldPlaced& placed = stored.placed();
    return {.id = placed.hold_id(),
            .backup_id = placed.backup_id(),
            .from = time_of(placed.from_at_us()),
            .to = time_of(placed.to_at_us()),
            .until = time_of(placed.until_at_us()),
            .reason = placed.reason(),
            .placed_at = WallTime(Micros(stored.at_us())),
            .placed_by = stored.actor()};
}

}  // namespace

Result<std::vector<HoldRecord>> IndexHolds::all(const std::string& cluster) const {
    std::vector<HoldRecord> found;
    const std::string prefix = prefix_of(cluster);
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
        pb::StoredHold stored;
        if (!stored.ParseFromArray(at->value().data(), static_cast<int>(at->value().size())))
            return fail(Errc::corrupt, "index: a hold cannot be read");
        found.push_back(record_of(stored));
    }
    WV_CHECK(IndexStore::check(*at));
    std::ranges::stable_sort(found, {}, &HoldRecord::placed_at);
    return found;
}

bool IndexHolds::apply(const pb::LedgerEntry& entry) {
    if (entry.has_hold_released()) {
        const pb::HoldReleased& released = entry.hold_released();
        store_.remove(Family::state, prefix_of(released.cluster()) + released.hold_id());
    }
    if (!entry.has_hold_placed()) return entry.has_hold_released();
    pb::StoredHold stored;
    *stored.mutable_placed() = entry.hold_placed();
    stored.set_at_us(entry.at_us());
    stored.set_actor(entry.actor());
    store_.put(Family::state,
               prefix_of(entry.hold_placed().cluster()) + entry.hold_placed().hold_id(),
               stored.SerializeAsString());
    return true;
}

}  // namespace walvault::storage
