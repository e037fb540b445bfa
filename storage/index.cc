#include "storage/index.h"

#include <rocksdb/iterator.h>

#include <algorithm>
#include <map>

#include "storage/index_chunks.h"
#include "storage/index_holds.h"
#include "storage/index_journal.h"
#include "storage/index_keys.h"
#include "storage/index_retention.h"
#include "storage/index_store.h"
#include "storage/index_totals.h"
#include "storage/repository_files.h"

namespace walvault::storage {
namespace {

using namespace index_keys;

template <class Message>
Result<Message> parse(const std::string& value) {
    Message message;
    if (!message.ParseFromString(value))
        return fail(Errc::corrupt, "index: a value cannot be read");
    return message;
}

// Of a backup that was started and is not over.
template <class Backup>
std::string started_key(const Backup& backup) {
    return "backup/" + backup.cluster() + "/" + backup.backup_id();
}

// Entries of versions without journals do not say.
pb::PackKind kind_of(const pb::TailOpened& tail) {
    return tail.kind() == pb::PACK_KIND_UNSPECIFIED ? pb::PACK_KIND_WAL : tail.kind();
}

constexpr const char* kWatermark = "watermark";
constexpr const char* kGeneration = "generation";
constexpr const char* kDamaged = "damaged";
constexpr const char* kFormat = "format";
constexpr const char* kFormatValue = "walvault index 7";

class RocksIndex final : public Index {
public:
    explicit RocksIndex(std::unique_ptr<IndexStore> store)
        : store_(std::move(store)),
          retention_(*store_),
          holds_(*store_),
          journals_(*store_, retention_) {}

    Result<> require_format(bool create) {
        WV_TRY(auto format, store_->get(Family::state, kFormat));
        if (format && *format == kFormatValue) return {};
        if (format || !create)
            return fail(Errc::corrupt,
                        std::string("index: format is not \"") + kFormatValue + "\"");
        store_->begin();
        store_->put(Family::state, kFormat, kFormatValue);
        return store_->commit();
    }

    Result<LedgerHead> watermark() override {
        WV_TRY(auto value, store_->get(Family::state, kWatermark));
        LedgerHead head;
        if (!value) return head;
        ByteReader reader(as_bytes(*value));
        head.sequence = reader.le<std::uint64_t>();
        ByteSpan hash = reader.bytes(head.hash.size());
        if (!reader.ok()) return fail(Errc::corrupt, "index: the watermark cannot be read");
        std::copy(hash.begin(), hash.end(), head.hash.begin());
        return head;
    }

    Result<> apply(const pb::LedgerEntry& entry, const LedgerHead& head,
                   const Footers& footers) override {
        WV_TRY(LedgerHead before, watermark());
        if (head.sequence != before.sequence + 1)
            return fail(Errc::invalid_argument, "index: entry " + std::to_string(head.sequence) +
                                                    " of the ledger does not follow entry " +
                                                    std::to_string(before.sequence));
        store_->begin();
        WV_CHECK(apply_event(entry, footers));
        ByteBuffer mark;
        append_le<std::uint64_t>(mark, head.sequence);
        append(mark, head.hash);
        store_->put(Family::state, kWatermark, std::string(as_text(mark)));
        return store_->commit();
    }

    Result<std::vector<pb::PackInfo>> unread_packs() override {
        return all<pb::PackInfo>(Family::state, "unread/");
    }
    Result<> take_footer(const pb::PackInfo& pack, const pb::PackFooter& footer) override {
        store_->begin();
        if (pack.kind() == pb::PACK_KIND_WAL)
            put_marks(pack, footer);
        else if (is_of_journal(pack.kind()))
            journals_.put_tables(pack, footer);
        else
            WV_CHECK(put_late_base_pack(*store_, pack, footer));
        store_->remove(Family::state, "unread/" + pack.path());
        return store_->commit();
    }

    Result<> note_synced(const std::string& tail_path, std::uint32_t synced_frames) override {
        store_->begin();
        std::string value;
        append_number(value, synced_frames);
        store_->put(Family::state, "witness/" + tail_path, value);
        return store_->commit();
    }

    Result<> note_looked(const Id16& journal, Lsn lsn) override {
        store_->begin();
        journals_.put_looked(journal, lsn);
        return store_->commit();
    }

    Result<> sync() override { return store_->sync(); }

    Result<std::uint64_t> generation() override {
        WV_TRY(auto value, store_->get(Family::state, kGeneration));
        if (!value || value->size() != 8) return std::uint64_t{0};
        return load_be<std::uint64_t>(as_bytes(*value).data());
    }

    Result<std::vector<ClusterRecord>> clusters() override {
        std::vector<ClusterRecord> found;
        WV_CHECK(
            each<pb::ClusterAdded>(Family::state, "cluster/", [&](const pb::ClusterAdded& cluster) {
                found.push_back({.name = cluster.cluster(),
                                 .system_identifier = cluster.system_identifier(),
                                 .segment_bytes = cluster.segment_bytes(),
                                 .server_version_num = cluster.server_version_num()});
            }));
        return found;
    }
    Result<std::vector<pb::HistoryOpened>> histories(const std::string& cluster) override {
        return all<pb::HistoryOpened>(Family::state, "history/" + cluster + "/");
    }
    Result<std::vector<pb::GapFound>> gaps(const std::string& cluster) override {
        return all<pb::GapFound>(Family::state, "gap/" + cluster + "/");
    }
    Result<std::vector<OpenTail>> open_tails(pb::PackKind kind) override {
        WV_TRY(auto opened, all<pb::TailOpened>(Family::state, "tail/"));
        std::vector<OpenTail> tails;
        for (pb::TailOpened& tail : opened) {
            if (kind_of(tail) != kind) continue;
            WV_TRY(auto witness, store_->get(Family::state, "witness/" + tail.path()));
            std::uint32_t synced = 0;
            if (witness && witness->size() == 8)
                synced =
                    static_cast<std::uint32_t>(load_be<std::uint64_t>(as_bytes(*witness).data()));
            tails.push_back({std::move(tail), synced});
        }
        std::sort(tails.begin(), tails.end(), [](const OpenTail& a, const OpenTail& b) {
            return a.opened.start_lsn() < b.opened.start_lsn();
        });
        return tails;
    }
    Result<std::optional<pb::HistoryOpened>> history(const Id16& id) override {
        WV_TRY(auto value, store_->get(Family::state, "lineage/" + text_of(id)));
        if (!value) return std::optional<pb::HistoryOpened>{};
        WV_TRY(auto opened, parse<pb::HistoryOpened>(*value));
        return std::optional<pb::HistoryOpened>(std::move(opened));
    }
    Result<std::optional<Id16>> current_history(const std::string& cluster) override {
        WV_TRY(auto value, store_->get(Family::state, "current/" + cluster));
        if (!value) return std::optional<Id16>{};
        return std::optional<Id16>(id_from<16>(*value));
    }
    Result<std::optional<std::string>> timeline_history(const Id16& history,
                                                        TimelineId timeline) override {
        return store_->get(Family::state, numbered_key("timeline/" + text_of(history), timeline));
    }
    Result<std::vector<pb::BackupInfo>> backups(const std::string& cluster) override {
        WV_TRY(auto found, all<pb::BackupInfo>(Family::backups, cluster + "/"));
        std::vector<pb::BackupInfo> shown;
        for (pb::BackupInfo& backup : found) {
            WV_TRY(bool hidden, retention_.hides_base(cluster, backup.backup_id()));
            if (!hidden) shown.push_back(std::move(backup));
        }
        return shown;
    }
    Result<std::vector<pb::BackupStarted>> unfinished_backups() override {
        return all<pb::BackupStarted>(Family::state, "backup/");
    }

    Result<std::optional<pb::PackInfo>> wal_pack_at(const Id16& history, Lsn lsn) override {
        WV_TRY(auto pack, pack_before(history, wal_key(text_of(history), lsn.value)));
        if (pack && lsn.value >= pack->end_lsn()) pack.reset();
        return pack;
    }
    Result<std::optional<pb::PackInfo>> last_wal_pack(const Id16& history) override {
        return pack_before(history, wal_key(text_of(history), ~0ull));
    }
    Result<std::int64_t> largest_at_us(const Id16& history) override {
        return largest_at_of(text_of(history));
    }
    Result<std::int64_t> covered_until_us(const Id16& history) override {
        return covered_until_of(text_of(history));
    }
    Result<std::optional<pb::PackInfo>> first_pack_later_than(const Id16& history,
                                                              std::int64_t at_us) override {
        std::string prefix = text_of(history);
        auto at = store_->iterate(Family::clock);
        for (at->Seek(clock_key(prefix, at_us + 1, 0));
             at->Valid() && at->key().starts_with(prefix); at->Next()) {
            std::string key = at->key().ToString();
            WV_TRY(auto value, store_->get(Family::wal, prefix + key.substr(key.size() - 8)));
            if (!value)
                return fail(Errc::corrupt,
                            "index: the commit clock names a pack that is not there");
            WV_TRY(auto pack, parse<pb::PackInfo>(*value));
            WV_TRY(bool hidden, retention_.hides(pack.path()));
            if (hidden) continue;
            return std::optional<pb::PackInfo>(std::move(pack));
        }
        WV_CHECK(IndexStore::check(*at));
        return std::optional<pb::PackInfo>{};
    }
    Result<> each_wal_pack(const Id16& history, Lsn from, bool reverse,
                           const std::function<bool(const pb::PackInfo&)>& sink) override {
        std::string prefix = text_of(history);
        auto at = store_->iterate(Family::wal);
        std::string key = wal_key(prefix, from.value);
        at->SeekForPrev(key);
        if (reverse) {
            if (at->Valid() && at->key() == rocksdb::Slice(key)) at->Prev();
        } else {
            bool covers = false;
            if (at->Valid() && at->key().starts_with(prefix)) {
                WV_TRY(auto pack, parse<pb::PackInfo>(at->value().ToString()));
                covers = pack.end_lsn() > from.value;
            }
            if (!covers) at->Seek(key);
        }
        for (; at->Valid() && at->key().starts_with(prefix); reverse ? at->Prev() : at->Next()) {
            WV_TRY(auto pack, parse<pb::PackInfo>(at->value().ToString()));
            WV_TRY(bool hidden, retention_.hides(pack.path()));
            if (!hidden && !sink(pack)) return {};
        }
        return IndexStore::check(*at);
    }
    Result<std::vector<pb::MarkEntry>> marks(const Id16& history, std::int64_t since_us,
                                             std::int64_t until_us) override {
        WV_TRY(auto found, all<pb::MarkEntry>(Family::marks, text_of(history)));
        std::erase_if(found, [&](const pb::MarkEntry& mark) {
            return (since_us != 0 && mark.at_us() < since_us) ||
                   (until_us != 0 && mark.at_us() > until_us);
        });
        return found;
    }
    Result<std::optional<ChunkPlace>> chunk(const Id32& content_id) override {
        WV_TRY(auto value, store_->get(Family::chunks, std::string(as_text(content_id))));
        if (!value) return std::optional<ChunkPlace>{};
        ByteReader reader(as_bytes(*value));
        ChunkPlace place;
        ByteSpan file_id = reader.bytes(16);
        place.frame_number = reader.le<std::uint32_t>();
        place.offset = reader.le<std::uint64_t>();
        place.stored_bytes = reader.le<std::uint32_t>();
        place.plain_bytes = reader.le<std::uint32_t>();
        if (!reader.ok()) return fail(Errc::corrupt, "index: the place of a chunk cannot be read");
        std::copy(file_id.begin(), file_id.end(), place.file_id.begin());
        WV_TRY(auto holder, pack(place.file_id));
        if (!holder) return std::optional<ChunkPlace>{};  // deleted
        WV_TRY(place.condemned, retention_.is_condemned(holder->path()));
        return std::optional<ChunkPlace>(place);
    }
    Result<std::optional<pb::PackInfo>> pack(const Id16& file_id) override {
        WV_TRY(auto value, store_->get(Family::packs, text_of(file_id)));
        if (!value) return std::optional<pb::PackInfo>{};
        WV_TRY(auto info, parse<pb::PackInfo>(*value));
        return std::optional<pb::PackInfo>(std::move(info));
    }
    Result<std::vector<pb::PackInfo>> base_packs(const std::string& cluster) override {
        WV_TRY(auto stored, all<pb::PackInfo>(Family::packs, ""));
        std::vector<pb::PackInfo> found;
        for (pb::PackInfo& pack : stored) {
            if (pack.cluster() != cluster || is_of_journal(pack.kind())) continue;
            WV_TRY(bool hidden, retention_.hides(pack.path()));
            if (!hidden) found.push_back(std::move(pack));
        }
        return found;
    }
    IndexJournal& journals() override { return journals_; }
    IndexRetention& retention() override { return retention_; }
    const IndexHolds& holds() override { return holds_; }
    void freeze_retention() override { retention_frozen_ = true; }
    Result<Troubles> troubles(const std::string& cluster) override {
        Troubles troubles;
        WV_TRY(auto failed, store_->get(Family::state, "failed/" + cluster));
        WV_TRY(auto damaged, store_->get(Family::state, kDamaged));
        if (failed) {
            ByteReader reader(as_bytes(*failed));
            troubles.failed_backups = reader.le<std::uint64_t>();
            troubles.last_failed_backup = WallTime(Micros(reader.le<std::int64_t>()));
            if (!reader.ok())
                return fail(Errc::corrupt, "index: the failed backups cannot be read");
        }
        if (damaged) {
            ByteReader reader(as_bytes(*damaged));
            troubles.damaged = reader.le<std::uint64_t>();
            if (!reader.ok()) return fail(Errc::corrupt, "index: the damages cannot be read");
        }
        return troubles;
    }
    Result<RepositoryView::Totals> totals(const std::string& cluster) override {
        return totals_of(*store_, cluster);
    }

private:
    Result<std::int64_t> covered_until_of(const std::string& history) {
        WV_TRY(auto value, store_->get(Family::state, "covered/" + history));
        if (!value || value->size() != 8) return std::int64_t{0};
        return static_cast<std::int64_t>(load_be<std::uint64_t>(as_bytes(*value).data()));
    }
    // It never moves back.
    Result<> put_covered(const std::string& history, std::int64_t until_us) {
        WV_TRY(std::int64_t before, covered_until_of(history));
        if (until_us > before)
            store_->put(Family::state, "covered/" + history,
                        numbered_key("", static_cast<std::uint64_t>(until_us)));
        return {};
    }
    Result<std::int64_t> largest_at_of(const std::string& prefix) {
        auto at = store_->iterate(Family::clock);
        at->SeekForPrev(prefix + std::string(16, '\xff'));
        if (at->Valid() && at->key().starts_with(prefix)) {
            std::uint64_t raw =
                load_be<std::uint64_t>(as_bytes(at->key().ToStringView()).data() + prefix.size());
            return static_cast<std::int64_t>(raw ^ (1ull << 63));
        }
        WV_CHECK(IndexStore::check(*at));
        return std::int64_t{0};
    }
    Result<std::optional<pb::PackInfo>> pack_before(const Id16& history, const std::string& key) {
        auto at = store_->iterate(Family::wal);
        for (at->SeekForPrev(key); at->Valid() && at->key().starts_with(text_of(history));
             at->Prev()) {
            WV_TRY(auto pack, parse<pb::PackInfo>(at->value().ToString()));
            WV_TRY(bool hidden, retention_.hides(pack.path()));
            if (!hidden) return std::optional<pb::PackInfo>(std::move(pack));
        }
        WV_CHECK(IndexStore::check(*at));
        return std::optional<pb::PackInfo>{};
    }
    template <class Message, class Sink>
    Result<> each(Family family, const std::string& prefix, Sink sink) {
        auto at = store_->iterate(family);
        for (at->Seek(prefix); at->Valid() && at->key().starts_with(prefix); at->Next()) {
            WV_TRY(auto message, parse<Message>(at->value().ToString()));
            sink(message);
        }
        return IndexStore::check(*at);
    }
    template <class Message>
    Result<std::vector<Message>> all(Family family, const std::string& prefix) {
        std::vector<Message> found;
        WV_CHECK(each<Message>(family, prefix,
                               [&](Message& message) { found.push_back(std::move(message)); }));
        return found;
    }

    Result<> apply_event(const pb::LedgerEntry& entry, const Footers& footers);
    Result<> apply_retention(const pb::LedgerEntry& entry, const Footers& footers);
    Result<> apply_abandoned(const pb::TailAbandoned& abandoned);
    Result<> apply_closed(const pb::PackClosed& closed, std::uint64_t sequence,
                          const Footers& footers);
    void put_wal_pack(const pb::PackInfo& pack, std::int64_t largest_at_us);
    void put_marks(const pb::PackInfo& pack, const pb::PackFooter& footer);
    Result<> note_failed_backup(const std::string& cluster, std::int64_t at_us);
    Result<> note_verified(const pb::VerifyDone& done);
    void put_numbers(const std::string& key, std::initializer_list<std::uint64_t> numbers);

    Result<> apply_deleted(const pb::PackDeleted& deleted, std::uint64_t sequence,
                           const Footers& footers);

    std::unique_ptr<IndexStore> store_;
    IndexRetention retention_;
    IndexHolds holds_;
    IndexJournal journals_;
    bool retention_frozen_ = false;
};

Result<> RocksIndex::apply_event(const pb::LedgerEntry& entry, const Footers& footers) {
    using Event = pb::LedgerEntry;
    if (is_of_retention(entry)) return apply_retention(entry, footers);
    if (holds_.apply(entry)) return {};
    switch (entry.event_case()) {
        case Event::kWriterClaimed:
            store_->put(Family::state, kGeneration,
                        numbered_key("", entry.writer_claimed().generation()));
            return {};
        case Event::kClusterAdded:
            store_->put(Family::state, "cluster/" + entry.cluster_added().cluster(),
                        entry.cluster_added().SerializeAsString());
            return {};
        case Event::kHistoryOpened: {
            const pb::HistoryOpened& opened = entry.history_opened();
            std::string value = opened.SerializeAsString();
            store_->put(Family::state,
                        numbered_key("history/" + opened.cluster() + "/", entry.sequence()), value);
            store_->put(Family::state, "lineage/" + opened.history_id(), value);
            store_->put(Family::state, "current/" + opened.cluster(), opened.history_id());
            return {};
        }
        case Event::kHistoryResumed:
            store_->put(Family::state, "current/" + entry.history_resumed().cluster(),
                        entry.history_resumed().history_id());
            return {};
        case Event::kTimelineHistory:
            store_->put(Family::state,
                        numbered_key("timeline/" + entry.timeline_history().history_id(),
                                     entry.timeline_history().timeline()),
                        entry.timeline_history().content());
            return {};
        case Event::kGapFound:
            store_->put(Family::state,
                        numbered_key("gap/" + entry.gap_found().cluster() + "/", entry.sequence()),
                        entry.gap_found().SerializeAsString());
            return {};
        case Event::kJournalOpened:
        case Event::kJournalGap:
        case Event::kJournalTableLeft:
            return journals_.apply(entry);
        case Event::kTailOpened:
            store_->put(Family::state, "tail/" + entry.tail_opened().path(),
                        entry.tail_opened().SerializeAsString());
            journals_.apply_tail(entry.tail_opened());
            return {};
        case Event::kTailAbandoned:
            return apply_abandoned(entry.tail_abandoned());
        case Event::kPackClosed:
            return apply_closed(entry.pack_closed(), entry.sequence(), footers);
        case Event::kBackupStarted:
            store_->put(Family::state, started_key(entry.backup_started()),
                        entry.backup_started().SerializeAsString());
            return {};
        case Event::kBackupFailed:
            store_->remove(Family::state, started_key(entry.backup_failed()));
            return note_failed_backup(entry.backup_failed().cluster(), entry.at_us());
        case Event::kVerifyDone:
            return note_verified(entry.verify_done());
        case Event::kBackupCompleted: {
            const pb::BackupInfo& backup = entry.backup_completed().backup();
            store_->remove(Family::state, started_key(backup));
            store_->put(Family::backups, backup.cluster() + "/" + backup.backup_id(),
                        backup.SerializeAsString());
            return {};
        }
        default:
            return {};  // audit only
    }
}

Result<> RocksIndex::apply_retention(const pb::LedgerEntry& entry, const Footers& footers) {
    if (retention_frozen_) return {};
    if (entry.has_condemned()) return retention_.apply_condemned(entry);
    if (entry.has_pack_deleted())
        return apply_deleted(entry.pack_deleted(), entry.sequence(), footers);
    if (entry.has_place_added()) return retention_.apply_place_added(entry);
    if (entry.has_place_removed()) {
        WV_TRY(auto gone, retention_.apply_place_removed(entry.place_removed()));
        std::vector<const pb::PackInfo*> packs;
        for (const pb::PackInfo& pack : gone)
            packs.push_back(&pack);
        return add_to_totals(*store_, packs, -1);
    }
    return retention_.apply_finished(entry.deletions_finished());
}

Result<> RocksIndex::apply_abandoned(const pb::TailAbandoned& abandoned) {
    const std::string key = "tail/" + abandoned.path();
    WV_TRY(auto value, store_->get(Family::state, key));
    if (value) {
        WV_TRY(auto opened, parse<pb::TailOpened>(*value));
        if (kind_of(opened) == pb::PACK_KIND_JOURNAL)
            WV_CHECK(journals_.apply_abandoned(opened, abandoned));
        else if (abandoned.covered_until_us() != 0)
            WV_CHECK(put_covered(opened.history_id(), abandoned.covered_until_us()));
    }
    store_->remove(Family::state, key);
    store_->remove(Family::state, "witness/" + abandoned.path());
    return {};
}

Result<> RocksIndex::apply_closed(const pb::PackClosed& closed, std::uint64_t sequence,
                                  const Footers& footers) {
    // A copy of what lies elsewhere too: who holds on to what there was reads it there.
    if (retention_frozen_ && closed.copied_from_size() > 0) return {};
    std::vector<const pb::PackInfo*> packs{&closed.pack()};
    for (const pb::PackInfo& pack : closed.further())
        packs.push_back(&pack);
    WV_ASSERT(footers.size() == packs.size());
    if (!closed.replaces_tail().empty()) {
        store_->remove(Family::state, "tail/" + closed.replaces_tail());
        store_->remove(Family::state, "witness/" + closed.replaces_tail());
    }
    // Reads do not see what this entry has put: what is summed up is carried along.
    std::optional<std::int64_t> largest;
    std::int64_t covered = 0;
    for (std::size_t i = 0; i < packs.size(); ++i) {
        if (footers[i]->frames_size() == 0 && packs[i]->frame_count() > 0)
            store_->put(Family::state, "unread/" + packs[i]->path(), packs[i]->SerializeAsString());
        if (is_of_journal(packs[i]->kind())) continue;
        if (packs[i]->kind() != pb::PACK_KIND_WAL) {
            put_base_pack(*store_, *packs[i], *footers[i], sequence);
            continue;
        }
        if (!largest) {
            WV_TRY(largest, largest_at_of(packs[i]->history_id()));
        }
        largest = std::max(*largest, packs[i]->summary().last_at_us());
        put_wal_pack(*packs[i], *largest);
        put_marks(*packs[i], *footers[i]);
        covered = std::max(covered, packs[i]->summary().covered_until_us());
    }
    if (is_of_journal(closed.pack().kind())) WV_CHECK(journals_.apply_closed(closed, footers));
    if (covered != 0) WV_CHECK(put_covered(packs.front()->history_id(), covered));
    return add_to_totals(*store_, packs, 1);
}

Result<> RocksIndex::apply_deleted(const pb::PackDeleted& deleted, std::uint64_t sequence,
                                   const Footers& footers) {
    WV_TRY(auto pack, retention_.apply_deleted(deleted, sequence, footers));
    if (!pack) return {};
    return add_to_totals(*store_, {&*pack}, -1);
}

void RocksIndex::put_wal_pack(const pb::PackInfo& pack, std::int64_t largest_at_us) {
    store_->put(Family::wal, wal_key(pack.history_id(), pack.start_lsn()),
                pack.SerializeAsString());
    store_->put(Family::clock, clock_key(pack.history_id(), largest_at_us, pack.start_lsn()), "");
}

void RocksIndex::put_marks(const pb::PackInfo& pack, const pb::PackFooter& footer) {
    for (const pb::MarkEntry& mark : footer.marks())
        store_->put(Family::marks, mark_key(pack.history_id(), mark), mark.SerializeAsString());
}

Result<> RocksIndex::note_failed_backup(const std::string& cluster, std::int64_t at_us) {
    WV_TRY(Troubles known, troubles(cluster));
    put_numbers("failed/" + cluster, {known.failed_backups + 1, static_cast<std::uint64_t>(at_us)});
    return {};
}

// Only the level that reads everything can say that nothing is damaged any more.
Result<> RocksIndex::note_verified(const pb::VerifyDone& done) {
    WV_TRY(Troubles known, troubles(""));
    const std::uint64_t failed = done.failed_count();
    put_numbers(kDamaged, {done.level() == "chunks" ? failed : std::max(known.damaged, failed)});
    return {};
}

void RocksIndex::put_numbers(const std::string& key, std::initializer_list<std::uint64_t> numbers) {
    ByteBuffer bytes;
    for (std::uint64_t number : numbers)
        append_le(bytes, number);
    store_->put(Family::state, key, std::string(as_text(bytes)));
}

}  // namespace

Result<std::unique_ptr<Index>> Index::open(const std::string& directory, IndexHome& home) {
    WV_TRY(auto store, home.open(directory, false));
    auto index = std::make_unique<RocksIndex>(std::move(store));
    WV_CHECK(index->require_format(true));
    return index;
}

Result<std::unique_ptr<Index>> Index::open_scratch(const std::string& parent, IndexHome& home) {
    WV_TRY(auto store, home.open_scratch(parent));
    auto index = std::make_unique<RocksIndex>(std::move(store));
    WV_CHECK(index->require_format(true));
    return index;
}

Result<std::unique_ptr<Index>> Index::open_read_only(const std::string& directory,
                                                     IndexHome& home) {
    WV_TRY(auto store, home.open(directory, true));
    auto index = std::make_unique<RocksIndex>(std::move(store));
    WV_CHECK(index->require_format(false));
    return index;
}

}  // namespace walvault::storage
