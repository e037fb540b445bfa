#include "storage/index_retention.h"

#include <rocksdb/iterator.h>

#include <algorithm>
#include <map>

#include "storage/index_journal.h"
#include "storage/index_keys.h"

namespace walvault::storage {
namespace {

using namespace index_keys;

constexpr const char* kFate = "fate/";
constexpr const char* kBaseFate = "basefate/";
constexpr const char* kPlace = "place/";
constexpr const char* kFormerPlace = "formerplace/";

std::string condemned_prefix(const std::string& place) { return "condemned/" + place + "/"; }
std::string deleted_prefix(const std::string& place) { return "deleted/" + place + "/"; }
std::string expired_prefix(const std::string& place) { return "expired/" + place + "/"; }
std::string base_key(const std::string& cluster, const std::string& backup_id) {
    return kBaseFate + cluster + "/" + backup_id;
}

std::uint64_t number_in(const std::string& value) {
    return value.size() == 8 ? load_be<std::uint64_t>(as_bytes(value).data()) : 0;
}

Result<pb::Fate> parse_fate(const std::string& value) {
    pb::Fate fate;
    if (!fate.ParseFromString(value))
        return fail(Errc::corrupt, "index: what became of a pack cannot be read");
    return fate;
}

pb::PlaceFate* fate_at(pb::Fate& fate, const std::string& place) {
    for (pb::PlaceFate& each : *fate.mutable_places())
        if (each.place() == place) return &each;
    return nullptr;
}
const pb::PlaceFate* fate_at(const pb::Fate& fate, const std::string& place) {
    return fate_at(const_cast<pb::Fate&>(fate), place);
}

bool is_condemned_at_all(const pb::Fate& fate, const std::vector<std::string>& places) {
    return std::ranges::all_of(
        places, [&](const std::string& place) { return fate_at(fate, place) != nullptr; });
}
bool is_deleted_at_all(const pb::Fate& fate, const std::vector<std::string>& places) {
    return std::ranges::all_of(places, [&](const std::string& place) {
        const pb::PlaceFate* there = fate_at(fate, place);
        return there != nullptr && there->deleted();
    });
}

}  // namespace

bool is_of_retention(const pb::LedgerEntry& entry) {
    return entry.has_condemned() || entry.has_pack_deleted() || entry.has_deletions_finished() ||
           entry.has_place_added() || entry.has_place_removed();
}

Result<std::optional<pb::Fate>> IndexRetention::fate(const std::string& key) const {
    WV_TRY(auto value, store_.get_in_batch(Family::state, key));
    if (!value) return std::optional<pb::Fate>{};
    WV_TRY(pb::Fate found, parse_fate(*value));
    return std::optional<pb::Fate>(std::move(found));
}

Result<bool> IndexRetention::is_condemned(const std::string& path) const {
    WV_TRY(auto value, store_.get(Family::state, kFate + path));
    return value.has_value();
}

Result<bool> IndexRetention::hides_fated(const pb::Fate& fate) const {
    std::vector<std::string> shown;
    if (shown_place_) {
        shown = {*shown_place_};
    } else {
        WV_TRY(shown, places());
    }
    return shows_condemned_ ? is_deleted_at_all(fate, shown) : is_condemned_at_all(fate, shown);
}

Result<bool> IndexRetention::hides(const std::string& path) const {
    WV_TRY(auto value, store_.get(Family::state, kFate + path));
    if (!value) return false;
    WV_TRY(pb::Fate found, parse_fate(*value));
    return hides_fated(found);
}

Result<bool> IndexRetention::hides_base(const std::string& cluster,
                                        const std::string& backup_id) const {
    WV_TRY(auto value, store_.get(Family::state, base_key(cluster, backup_id)));
    if (!value) return false;
    WV_TRY(pb::Fate found, parse_fate(*value));
    return hides_fated(found);
}

Result<bool> IndexRetention::is_base_condemned(const std::string& cluster,
                                               const std::string& backup_id,
                                               const std::string& place) const {
    WV_TRY(auto value, store_.get(Family::state, base_key(cluster, backup_id)));
    if (!value) return false;
    WV_TRY(pb::Fate found, parse_fate(*value));
    return fate_at(found, place) != nullptr;
}

Result<std::vector<std::string>> IndexRetention::tiers() const {
    std::vector<std::string> found;
    const std::string prefix = kPlace;
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
        found.push_back(at->key().ToString().substr(prefix.size()));
    WV_CHECK(IndexStore::check(*at));
    return found;
}

Result<bool> IndexRetention::was_removed(const std::string& place) const {
    WV_TRY(auto value, store_.get(Family::state, kFormerPlace + place));
    return value.has_value();
}

Result<std::vector<std::string>> IndexRetention::places() const {
    WV_TRY(auto found, tiers());
    found.insert(found.begin(), "");
    return found;
}

Result<> IndexRetention::each_condemned(const std::string& place,
                                        const std::function<bool(CondemnedThere&)>& sink) const {
    WV_TRY(const auto everywhere, places());
    const std::string prefix = condemned_prefix(place);
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
        const std::string path = at->key().ToString().substr(prefix.size());
        WV_TRY(auto value, store_.get(Family::state, kFate + path));
        // Deleted since the iterator began.
        if (!value) continue;
        WV_TRY(pb::Fate fate, parse_fate(*value));
        const pb::PlaceFate* here = fate_at(fate, place);
        if (here == nullptr || here->deleted()) continue;
        CondemnedThere each{fate.pack(), here->reason(), WallTime(Micros(here->at_us())),
                            here->sequence()};
        for (const std::string& other : everywhere)
            if (fate_at(fate, other) == nullptr) each.kept_at.push_back(other);
        if (!sink(each)) return {};
    }
    return IndexStore::check(*at);
}

Result<std::vector<CondemnedThere>> IndexRetention::condemned(const std::string& place) const {
    std::vector<CondemnedThere> found;
    WV_CHECK(each_condemned(place, [&](CondemnedThere& each) {
        found.push_back(std::move(each));
        return true;
    }));
    return found;
}

Result<std::optional<std::uint64_t>> IndexRetention::condemned_by(const std::string& path,
                                                                  const std::string& place) const {
    WV_TRY(auto value, store_.get(Family::state, kFate + path));
    if (!value) return std::optional<std::uint64_t>{};
    WV_TRY(pb::Fate found, parse_fate(*value));
    const pb::PlaceFate* there = fate_at(found, place);
    if (there == nullptr) return std::optional<std::uint64_t>{};
    return std::optional<std::uint64_t>(there->sequence());
}

Result<std::vector<std::string>> IndexRetention::deleted_paths(const std::string& place) const {
    std::vector<std::string> found;
    const std::string prefix = deleted_prefix(place);
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
        found.push_back(at->key().ToString().substr(prefix.size()));
    WV_CHECK(IndexStore::check(*at));
    return found;
}

Result<Lsn> IndexRetention::expired_at(const std::string& place, const Id16& history) const {
    WV_TRY(auto value, store_.get(Family::state, expired_prefix(place) + text_of(history)));
    return Lsn{value ? number_in(*value) : 0};
}

Result<Lsn> IndexRetention::expired_until(const Id16& history) const {
    if (shown_place_) return expired_at(*shown_place_, history);
    WV_TRY(const auto everywhere, places());
    Lsn until{~0ull};
    for (const std::string& place : everywhere) {
        WV_TRY(const Lsn there, expired_at(place, history));
        until = std::min(until, there);
    }
    return until;
}

Result<> IndexRetention::condemn_bases(const pb::LedgerEntry& entry) {
    const pb::Condemned& condemned = entry.condemned();
    WV_TRY(const auto everywhere, places());
    for (const pb::CondemnedBackup& backup : condemned.backups()) {
        const std::string key = base_key(condemned.cluster(), backup.backup_id());
        WV_TRY(auto known, fate(key));
        pb::Fate now = known.value_or(pb::Fate());
        if (fate_at(now, condemned.place()) != nullptr) continue;
        pb::PlaceFate* here = now.add_places();
        here->set_place(condemned.place());
        here->set_reason(backup.reason());
        here->set_at_us(entry.at_us());
        here->set_sequence(entry.sequence());
        if (is_condemned_at_all(now, everywhere)) {
            store_.remove(Family::backups, condemned.cluster() + "/" + backup.backup_id());
            store_.remove(Family::state, key);
        } else {
            store_.put(Family::state, key, now.SerializeAsString());
        }
    }
    return {};
}

Result<> IndexRetention::apply_condemned(const pb::LedgerEntry& entry) {
    const pb::Condemned& condemned = entry.condemned();
    const std::string& place = condemned.place();
    WV_CHECK(condemn_bases(entry));
    std::map<std::string, std::uint64_t> expired;
    for (const pb::CondemnedPack& each : condemned.packs()) {
        const std::string& path = each.pack().path();
        WV_TRY(auto known, fate(kFate + path));
        pb::Fate now = known.value_or(pb::Fate());
        if (fate_at(now, place) != nullptr) continue;
        *now.mutable_pack() = each.pack();
        pb::PlaceFate* here = now.add_places();
        here->set_place(place);
        here->set_reason(each.reason());
        here->set_at_us(entry.at_us());
        here->set_sequence(entry.sequence());
        store_.put(Family::state, kFate + path, now.SerializeAsString());
        store_.put(Family::state, condemned_prefix(place) + path, "");
        if (each.pack().kind() != pb::PACK_KIND_WAL) continue;
        std::uint64_t& until = expired[each.pack().history_id()];
        until = std::max<std::uint64_t>(until, each.pack().end_lsn());
    }
    for (const auto& [history, until] : expired) {
        WV_TRY(Lsn before, expired_at(place, id_from<16>(history)));
        store_.put(Family::state, expired_prefix(place) + history,
                   numbered_key("", std::max(before.value, until)));
    }
    return {};
}

// What the directory has condemned by then is not expected there.
Result<> IndexRetention::apply_place_added(const pb::LedgerEntry& entry) {
    const std::string& place = entry.place_added().place();
    WV_TRY(auto known, store_.get(Family::state, kPlace + place));
    if (known) return {};
    store_.put(Family::state, kPlace + place, numbered_key("", entry.sequence()));
    auto at = store_.iterate(Family::state);
    for (const std::string prefix : {kFate, kBaseFate}) {
        for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
            WV_TRY(pb::Fate now, parse_fate(at->value().ToString()));
            if (fate_at(now, "") == nullptr || fate_at(now, place) != nullptr) continue;
            pb::PlaceFate* there = now.add_places();
            there->set_place(place);
            there->set_reason("it was condemned before the tier was added");
            there->set_at_us(entry.at_us());
            there->set_sequence(entry.sequence());
            there->set_deleted(true);
            store_.put(Family::state, at->key().ToString(), now.SerializeAsString());
        }
        WV_CHECK(IndexStore::check(*at));
    }
    const std::string prefix = expired_prefix("");
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
        store_.put(Family::state,
                   expired_prefix(place) + at->key().ToString().substr(prefix.size()),
                   at->value().ToString());
    return IndexStore::check(*at);
}

Result<std::vector<pb::PackInfo>> IndexRetention::apply_place_removed(
    const pb::PlaceRemoved& removed) {
    const std::string& place = removed.place();
    WV_TRY(auto left, places());
    std::erase(left, place);
    store_.remove(Family::state, kPlace + place);
    store_.put(Family::state, kFormerPlace + place, "");
    std::vector<pb::PackInfo> gone;
    auto at = store_.iterate(Family::state);
    for (const std::string prefix : {kFate, kBaseFate}) {
        for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
            const std::string key = at->key().ToString();
            WV_TRY(pb::Fate now, parse_fate(at->value().ToString()));
            for (int i = now.places_size() - 1; i >= 0; --i)
                if (now.places(i).place() == place) now.mutable_places()->DeleteSubrange(i, 1);
            if (prefix == kBaseFate && is_condemned_at_all(now, left)) {
                store_.remove(Family::backups, key.substr(prefix.size()));
                store_.remove(Family::state, key);
            } else if (prefix == kFate && is_deleted_at_all(now, left)) {
                gone.push_back(now.pack());
                WV_CHECK(forget(now.pack(), {}));
            } else if (now.places_size() == 0) {
                store_.remove(Family::state, key);
            } else {
                store_.put(Family::state, key, now.SerializeAsString());
            }
        }
        WV_CHECK(IndexStore::check(*at));
    }
    for (const std::string& prefix :
         {condemned_prefix(place), deleted_prefix(place), expired_prefix(place)}) {
        for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
            store_.remove(Family::state, at->key().ToString());
        WV_CHECK(IndexStore::check(*at));
    }
    return gone;
}

Result<std::optional<pb::PackInfo>> IndexRetention::apply_deleted(const pb::PackDeleted& deleted,
                                                                  std::uint64_t sequence,
                                                                  const Footers& footers) {
    WV_TRY(auto known, fate(kFate + deleted.path()));
    pb::PlaceFate* here = known ? fate_at(*known, deleted.place()) : nullptr;
    if (here == nullptr || here->deleted()) return std::optional<pb::PackInfo>{};
    here->set_deleted(true);
    store_.remove(Family::state, condemned_prefix(deleted.place()) + deleted.path());
    store_.put(Family::state, deleted_prefix(deleted.place()) + deleted.path(),
               numbered_key("", sequence));
    WV_TRY(const auto everywhere, places());
    if (!is_deleted_at_all(*known, everywhere)) {
        store_.put(Family::state, kFate + deleted.path(), known->SerializeAsString());
        return std::optional<pb::PackInfo>{};
    }
    WV_CHECK(forget(known->pack(), footers));
    return std::optional<pb::PackInfo>(known->pack());
}

Result<> IndexRetention::forget(const pb::PackInfo& pack, const Footers& footers) {
    store_.remove(Family::state, kFate + pack.path());
    store_.remove(Family::state, "unread/" + pack.path());
    if (is_of_journal(pack.kind())) return IndexJournal(store_, *this).forget(pack);
    return pack.kind() == pb::PACK_KIND_WAL ? remove_wal(pack) : remove_chunks(pack, footers);
}

Result<> IndexRetention::apply_finished(const pb::DeletionsFinished& finished) {
    const std::string prefix = deleted_prefix(finished.place());
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
        if (number_in(at->value().ToString()) <= finished.through_sequence())
            store_.remove(Family::state, at->key().ToString());
    return IndexStore::check(*at);
}

Result<> IndexRetention::remove_wal(const pb::PackInfo& pack) {
    store_.remove(Family::wal, wal_key(pack.history_id(), pack.start_lsn()));
    // Its key holds the largest time up to it, which is at least its own.
    const std::string& prefix = pack.history_id();
    auto at = store_.iterate(Family::clock);
    for (at->Seek(clock_key(prefix, pack.summary().last_at_us(), 0));
         at->Valid() && at->key().starts_with(prefix); at->Next()) {
        const std::string key = at->key().ToString();
        if (!key.ends_with(numbered_key("", pack.start_lsn()))) continue;
        store_.remove(Family::clock, key);
        break;
    }
    WV_CHECK(IndexStore::check(*at));
    return remove_marks(pack);
}

// Those that start in it, and those that end in it: neither record is whole any more.
Result<> IndexRetention::remove_marks(const pb::PackInfo& pack) {
    const std::string& prefix = pack.history_id();
    auto at = store_.iterate(Family::marks);
    auto mark_at = [&]() -> Result<pb::MarkEntry> {
        pb::MarkEntry mark;
        if (!mark.ParseFromString(at->value().ToString()))
            return fail(Errc::corrupt, "index: a mark cannot be read");
        return mark;
    };
    for (at->Seek(wal_key(prefix, pack.start_lsn())); at->Valid() && at->key().starts_with(prefix);
         at->Next()) {
        WV_TRY(pb::MarkEntry mark, mark_at());
        if (mark.start_lsn() >= pack.end_lsn()) break;
        store_.remove(Family::marks, at->key().ToString());
    }
    WV_CHECK(IndexStore::check(*at));
    // Only one record crosses the start, and several marks may tell of it.
    for (at->SeekForPrev(wal_key(prefix, pack.start_lsn()));
         at->Valid() && at->key().starts_with(prefix); at->Prev()) {
        WV_TRY(pb::MarkEntry mark, mark_at());
        if (mark.end_lsn() <= pack.start_lsn()) break;
        store_.remove(Family::marks, at->key().ToString());
    }
    return IndexStore::check(*at);
}

// A chunk that was stored anew since has another place by now.
Result<> IndexRetention::remove_chunks(const pb::PackInfo& pack, const Footers& footers) {
    store_.remove(Family::packs, pack.file_id());
    store_.remove(Family::state, entered_key(pack.file_id()));
    for (const pb::PackFooter* footer : footers)
        for (const pb::FrameEntry& frame : footer->frames()) {
            if (frame.content_id().empty()) continue;
            WV_TRY(auto place, store_.get(Family::chunks, frame.content_id()));
            if (place && place->starts_with(pack.file_id()))
                store_.remove(Family::chunks, frame.content_id());
        }
    return {};
}

}  // namespace walvault::storage
