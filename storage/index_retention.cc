#include "storage/index_retention.h"

#include <rocksdb/iterator.h>

#include <algorithm>
#include <map>

#include "storage/index_keys.h"

namespace walvault::storage {
namespace {

using namespace index_keys;

constexpr const char* kCondemned = "condemned/";
constexpr const char* kDeleted = "deleted/";
constexpr const char* kExpired = "expired/";

std::uint64_t number_in(const std::string& value) {
    return value.size() == 8 ? load_be<std::uint64_t>(as_bytes(value).data()) : 0;
}

}  // namespace

bool is_of_retention(const pb::LedgerEntry& entry) {
    return entry.has_condemned() || entry.has_pack_deleted() || entry.has_deletions_finished();
}

Result<bool> IndexRetention::is_condemned(const std::string& path) const {
    WV_TRY(auto value, store_.get(Family::state, kCondemned + path));
    return value.has_value();
}

Result<bool> IndexRetention::hides(const std::string& path) const {
    if (shows_condemned_) return false;
    return is_condemned(path);
}

Result<std::vector<pb::CondemnedPack>> IndexRetention::condemned() const {
    std::vector<pb::CondemnedPack> found;
    auto at = store_.iterate(Family::state);
    for (at->Seek(kCondemned); at->Valid() && at->key().starts_with(kCondemned); at->Next()) {
        pb::CondemnedPack pack;
        if (!pack.ParseFromString(at->value().ToString()))
            return fail(Errc::corrupt, "index: a condemned pack cannot be read");
        found.push_back(std::move(pack));
    }
    WV_CHECK(IndexStore::check(*at));
    return found;
}

Result<std::vector<std::string>> IndexRetention::deleted_paths() const {
    std::vector<std::string> found;
    const std::string prefix = kDeleted;
    auto at = store_.iterate(Family::state);
    for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next())
        found.push_back(at->key().ToString().substr(prefix.size()));
    WV_CHECK(IndexStore::check(*at));
    return found;
}

Result<Lsn> IndexRetention::expired_until(const Id16& history) const {
    WV_TRY(auto value, store_.get(Family::state, kExpired + text_of(history)));
    return Lsn{value ? number_in(*value) : 0};
}

Result<> IndexRetention::apply_condemned(const pb::LedgerEntry& entry) {
    const pb::Condemned& condemned = entry.condemned();
    for (const pb::CondemnedBackup& backup : condemned.backups())
        store_.remove(Family::backups, condemned.cluster() + "/" + backup.backup_id());
    std::map<std::string, std::uint64_t> expired;
    for (const pb::CondemnedPack& each : condemned.packs()) {
        pb::CondemnedPack pack = each;
        pack.set_at_us(entry.at_us());
        store_.put(Family::state, kCondemned + pack.pack().path(), pack.SerializeAsString());
        if (pack.pack().kind() != pb::PACK_KIND_WAL) continue;
        std::uint64_t& until = expired[pack.pack().history_id()];
        until = std::max<std::uint64_t>(until, pack.pack().end_lsn());
    }
    for (const auto& [history, until] : expired) {
        WV_TRY(Lsn before, expired_until(id_from<16>(history)));
        store_.put(Family::state, kExpired + history,
                   numbered_key("", std::max(before.value, until)));
    }
    return {};
}

Result<std::optional<pb::PackInfo>> IndexRetention::apply_deleted(const pb::PackDeleted& deleted,
                                                                  std::uint64_t sequence,
                                                                  const Footers& footers) {
    WV_TRY(auto value, store_.get(Family::state, kCondemned + deleted.path()));
    if (!value) return std::optional<pb::PackInfo>{};
    pb::CondemnedPack condemned;
    if (!condemned.ParseFromString(*value))
        return fail(Errc::corrupt, "index: a condemned pack cannot be read");
    const pb::PackInfo& pack = condemned.pack();
    store_.remove(Family::state, kCondemned + pack.path());
    store_.remove(Family::state, "unread/" + pack.path());
    store_.put(Family::state, kDeleted + pack.path(), numbered_key("", sequence));
    if (pack.kind() == pb::PACK_KIND_WAL)
        WV_CHECK(remove_wal(pack));
    else
        WV_CHECK(remove_chunks(pack, footers));
    return std::optional<pb::PackInfo>(pack);
}

Result<> IndexRetention::apply_finished(const pb::DeletionsFinished& finished) {
    auto at = store_.iterate(Family::state);
    for (at->Seek(kDeleted); at->Valid() && at->key().starts_with(kDeleted); at->Next())
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
