#include "storage/repository_view.h"

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "base/log.h"
#include "storage/index_catch_up.h"
#include "storage/index_holds.h"
#include "storage/index_retention.h"
#include "storage/journal_source.h"
#include "storage/lineage.h"
#include "storage/manifest_pack.h"
#include "storage/pack_check.h"
#include "storage/repository_files.h"
#include "storage/repository_state.h"
#include "storage/tail_writer.h"
#include "storage/wal_store.h"

namespace walvault::storage {
namespace {

// Open ciphers: the keys of each lie in locked pages of their own, which the kernel counts.
constexpr std::size_t kBasePacksMax = 64;

bool is_wanted(const pb::MarkEntry& mark, WallTime since, WallTime until,
               const std::vector<pb::MarkEntry::Kind>& kinds) {
    std::int64_t since_us = since.time_since_epoch().count();
    std::int64_t until_us = until.time_since_epoch().count();
    if (since_us != 0 && mark.at_us() < since_us) return false;
    if (until_us != 0 && mark.at_us() > until_us) return false;
    return kinds.empty() || std::find(kinds.begin(), kinds.end(), mark.kind()) != kinds.end();
}

class View final : public RepositoryView {
public:
    View(ObjectStore& store, OpenedRepository opened, bool is_tier)
        : store_(store), is_tier_(is_tier), id_(opened.id), keyring_(std::move(opened.keyring)) {}

    Result<> open_index(const Options& options);
    void settle_retention(const Options& options) {
        index_->freeze_retention();
        if (options.with_condemned) index_->retention().show_condemned();
    }
    Result<> scan_tails(bool missing_is_damage);

    const Id16& repository_id() const override { return id_; }
    Result<std::vector<ClusterRecord>> clusters() override { return index_->clusters(); }
    Result<std::vector<HistoryRecord>> histories(const std::string& cluster) override;
    Result<std::optional<Id16>> current_history(const std::string& cluster) override {
        return index_->current_history(cluster);
    }
    Result<std::vector<Stretch>> lineage(const Id16& history_id) override {
        return lineage_of(*index_, history_id);
    }
    Result<std::vector<pb::BackupInfo>> backups(const std::string& cluster) override {
        return index_->backups(cluster);
    }
    Result<std::vector<GapRecord>> gaps(const std::string& cluster) override;
    Result<std::vector<HoldRecord>> holds(const std::string& cluster) override {
        return index_->holds().all(cluster);
    }
    Result<Lsn> expired_until(const Id16& history_id) override {
        return index_->retention().expired_until(history_id);
    }
    Result<std::vector<CondemnedThere>> condemned(const std::string& cluster,
                                                  const std::string& place) override;
    Result<std::vector<std::string>> tiers() override { return index_->retention().tiers(); }
    Result<std::vector<pb::BackupStarted>> unfinished_backups() override {
        return index_->unfinished_backups();
    }
    Result<ChunkPlace> place_of_chunk(const Id32& content_id) override;
    Result<bool> keeps(const pb::PackInfo& pack, const std::string& place) override {
        WV_TRY(auto condemned, index_->retention().condemned_by(pack.path(), place));
        return !condemned.has_value();
    }
    Result<std::vector<MarkRecord>> marks(const std::string& cluster, WallTime since,
                                          WallTime until,
                                          const std::vector<pb::MarkEntry::Kind>& kinds) override;
    Result<std::vector<MarkRecord>> lineage_marks(
        const Id16& history_id, WallTime since, WallTime until,
        const std::vector<pb::MarkEntry::Kind>& kinds) override;
    Result<std::vector<ClockStep>> clock_steps(const Id16& history_id) override;
    Result<std::string> timeline_history(const Id16& history_id, TimelineId timeline) override;
    Result<Totals> totals(const std::string& cluster) override;
    Result<std::vector<pb::PackInfo>> packs(const std::string& cluster) override;

    Result<> require_coverage(const Id16& history_id, Lsn from, Lsn to) override {
        return or_damage(history_id, wal_->require_coverage(history_id, from, to));
    }
    Result<> read_wal(const Id16& history_id, Lsn from, Lsn to,
                      const std::function<Result<>(ByteSpan)>& sink) override {
        return or_damage(history_id, wal_->read(history_id, from, to, sink));
    }
    Result<std::optional<WalFinding>> first_transaction_after(const Id16& history_id,
                                                              WallTime at) override {
        return wal_->first_transaction_after(history_id, at);
    }
    Result<std::optional<WalFinding>> first_transaction_from(const Id16& history_id,
                                                             Lsn lsn) override {
        return wal_->first_transaction_from(history_id, lsn);
    }
    Result<std::optional<WalFinding>> last_commit_before(const Id16& history_id, Lsn lsn) override {
        return wal_->last_commit_before(history_id, lsn);
    }
    Result<bool> has_commit_behind(const Id16& history_id, Lsn lsn) override {
        return wal_->has_commit_behind(history_id, lsn);
    }
    Result<std::vector<WalFinding>> find_xid(const Id16& history_id, Xid xid) override {
        return wal_->find_xid(history_id, xid);
    }
    Result<> scan(const Id16& history_id, Lsn from, Lsn to,
                  const std::function<bool(const WalFinding&)>& sink) override {
        return wal_->scan(history_id, from, to, sink);
    }
    Result<std::uint64_t> count_commits(const Id16& history_id, Lsn from, Lsn to) override {
        return wal_->count_commits(history_id, from, to);
    }

    Result<> read_manifest(const pb::BackupInfo& backup,
                           const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                           const std::function<Result<>(pb::ManifestFile&)>& on_file) override;
    Result<> read_chunk(const Id32& content_id, ByteBuffer& plain) override;
    Result<std::uint64_t> verify_pack(const pb::PackInfo& pack, bool decode_wal) override;
    Result<std::vector<JournalRecord>> journals(const std::string& cluster) override {
        return read_journals(journal_host(), cluster);
    }
    Result<std::unique_ptr<JournalSource>> journal_source(const Id16& journal) override {
        WV_TRY(auto known, index_->journals().journal(journal));
        if (!known) return std::unique_ptr<JournalSource>();
        auto source = std::make_unique<JournalSource>(journal_host(), journal);
        WV_CHECK(source->refresh());
        return source;
    }

private:
    JournalHost journal_host() {
        return {store_, keyring_, *index_, is_tier_, [this] { return catch_index_up(); }};
    }
    Result<> catch_index_up();
    Result<ScannedTail> pack_in_its_place(const pb::TailOpened& opened);
    Result<> replace_closed_tail(const std::string& path);
    Result<bool> ledger_has_grown();
    Result<bool> has_nothing_yet(const pb::TailOpened& opened);
    void note_damage(const Id16& history, const pb::TailOpened& tail, const Error& error);
    Result<> or_damage(const Id16& history, Result<> done);
    Result<std::vector<pb::MarkEntry>> own_marks(const Id16& history);
    Result<std::shared_ptr<const FileCipher>> base_cipher(const Id16& file_id, std::string& path);
    Result<> verify_tail(const pb::PackInfo& tail, std::uint64_t& checked);

    ObjectStore& store_;
    bool is_tier_;
    Id16 id_;
    Keyring keyring_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<WalStore> wal_;
    std::vector<ScannedTail> tails_;
    std::vector<pb::PackInfo> tail_infos_;
    std::map<std::string, pb::PackInfo> manifests_;  // that were seen, by path
    std::map<Id16, Error> damages_;                  // of tails, by the history that ends before it

    struct BasePack {
        std::string path;
        std::shared_ptr<const FileCipher> cipher;
    };
    // read_chunk() runs on many threads, also while replace_closed_tail() catches the index up.
    std::shared_mutex index_mutex_;
    // They share the ciphers of the packs they read from.
    std::mutex base_packs_mutex_;
    std::list<std::pair<Id16, BasePack>> base_packs_;  // the last used first
};

Result<> View::open_index(const Options& options) {
    const DataKey* ledger_key = keyring_.current(pb::KEY_PURPOSE_LEDGER);
    if (ledger_key == nullptr) return fail(Errc::corrupt, "the keyring has no key for the ledger");
    LedgerKeys keys = LedgerKeys::derive(*ledger_key);
    std::uint64_t seen = 0;
    if (!options.index_directory.empty()) {
        auto opened = Index::open_read_only(options.index_directory, *options.index_home);
        if (opened) {
            index_ = std::move(*opened);
            if (options.place) index_->retention().show_place(*options.place);
            auto watermark = index_->watermark();
            if (watermark) seen = watermark->sequence;
            auto head = watermark ? catch_up(*index_, store_, store_, id_, keys, keyring_)
                                  : tl::unexpected(watermark.error());
            if (head) return {};
            if (head.error().code != Errc::invalid_argument && head.error().code != Errc::corrupt &&
                head.error().code != Errc::io)
                return fail(head.error());
            index_.reset();
        }
    }
    WV_TRY(index_, Index::open_scratch(options.scratch_directory, *options.index_home));
    if (options.place) index_->retention().show_place(*options.place);
    WV_TRY(LedgerHead head, catch_up(*index_, store_, store_, id_, keys, keyring_));
    if (head.sequence == 0)
        return fail(Errc::corrupt, "the repository has no ledger",
                    "copy the folder `ledger` from another copy of this repository");
    if (head.sequence < seen)
        return fail(Errc::corrupt,
                    "the ledger ends at entry " + std::to_string(head.sequence) + " but entry " +
                        std::to_string(seen) + " was seen before",
                    "the repository was rolled back or its ledger cut");
    return {};
}

// A tail that is damaged or missing ends its history where it is whole; everything before it is
// restorable, and what it lost is told by whoever asks for it.
Result<> View::scan_tails(bool missing_is_damage) {
    wal_ = std::make_unique<WalStore>(store_, keyring_, *index_);
    wal_->on_closed_tail([this](const std::string& path) { return replace_closed_tail(path); });
    WV_TRY(auto open, index_->open_tails());
    tails_.clear();
    tail_infos_.clear();
    damages_.clear();
    for (const OpenTail& tail : open) {
        auto found = wal_->scan_continuation(tail.opened, tail.synced_frames);
        if (!found && found.error().code == Errc::not_found) found = pack_in_its_place(tail.opened);
        const Id16 history = id_from<16>(tail.opened.history_id());
        if (!found && found.error().code == Errc::not_found && is_tier_) {
            // The writer may have put its pack there meanwhile and removed it.
            WV_TRY(bool grown, ledger_has_grown());
            if (grown) return scan_tails(missing_is_damage);
            WV_TRY(bool is_new, has_nothing_yet(tail.opened));
            if (is_new) continue;
        } else if (!found && found.error().code == Errc::not_found && !missing_is_damage) {
            return fail(found.error());
        }
        if (!found && found.error().code != Errc::not_found && found.error().code != Errc::corrupt)
            return fail(found.error());
        if (!found) {
            note_damage(history, tail.opened, found.error());
            continue;
        }
        ScannedTail scanned = std::move(*found);
        if (scanned.damage) note_damage(history, tail.opened, *scanned.damage);
        pb::PackInfo info;
        info.set_path(scanned.reader->path());  // the tail, or the pack in its place
        info.set_kind(pb::PACK_KIND_WAL);
        info.set_cluster(tail.opened.cluster());
        info.set_start_lsn(tail.opened.start_lsn());
        info.set_end_lsn(scanned.end_lsn.value);
        info.set_history_id(tail.opened.history_id());
        tail_infos_.push_back(std::move(info));
        tails_.push_back(std::move(scanned));
        wal_->set_tails(tails_);
    }
    return {};
}

Result<bool> View::ledger_has_grown() {
    LedgerKeys keys = LedgerKeys::derive(*keyring_.current(pb::KEY_PURPOSE_LEDGER));
    WV_TRY(LedgerHead before, index_->watermark());
    WV_TRY(LedgerHead now, catch_up(*index_, store_, store_, id_, keys, keyring_));
    return now.sequence > before.sequence;
}

// A tier gets the entry before the first frame; what follows a tail there comes after all of its
// frames.
Result<bool> View::has_nothing_yet(const pb::TailOpened& opened) {
    WV_TRY(auto behind, wal_->start_behind(opened));
    return !behind.has_value();
}

void View::note_damage(const Id16& history, const pb::TailOpened& tail, const Error& error) {
    Error damage = error;
    damage.code = Errc::corrupt;
    if (error.code == Errc::not_found)
        damage.message = "the tail " + tail.path() + " is missing: WAL from " +
                         to_string(Lsn{tail.start_lsn()}) + " on is lost";
    damage.hint =
        "copy it back from another copy of this repository; what is before it can be restored";
    damages_.emplace(history, std::move(damage));
}

// What is not stored because it is damaged is no gap: it was there.
Result<> View::or_damage(const Id16& history, Result<> done) {
    if (done || done.error().code != Errc::gap) return done;
    WV_TRY(auto stretches, lineage_of(*index_, history));
    for (const Stretch& stretch : stretches)
        if (auto damage = damages_.find(stretch.history); damage != damages_.end())
            return fail(damage->second);
    return done;
}

// A crash may fall between the renaming of a tail to a pack and the ledger entry that says so: the
// pack is whole, and the next start of the agent enters it.
Result<ScannedTail> View::pack_in_its_place(const pb::TailOpened& opened) {
    pb::PackInfo wanted;
    wanted.set_path(pack_path_of_tail(opened.path()));
    WV_CHECK(store_.info(wanted.path()));  // not_found is no damage yet
    WV_TRY(auto reader, PackReader::open(store_, wanted, keyring_));
    if (!is_pack_of_tail(reader->cipher().header(), opened))
        return fail(Errc::corrupt, wanted.path() + " stands in the place of " + opened.path() +
                                       " and is not its pack");
    ScannedTail tail;
    tail.header = reader->cipher().header();
    tail.end_lsn = tail.header.start_lsn;
    for (const pb::FrameEntry& frame : reader->footer().frames())
        tail.end_lsn = Lsn{frame.start_lsn() + frame.plain_bytes()};
    tail.summary = summary_of(reader->footer());
    tail.largest_at_us = tail.summary.last_at_us();
    tail.reader = std::move(reader);
    return tail;
}

Result<> View::catch_index_up() {
    LedgerKeys keys = LedgerKeys::derive(*keyring_.current(pb::KEY_PURPOSE_LEDGER));
    std::unique_lock guard(index_mutex_);
    WV_TRY(LedgerHead head, catch_up(*index_, store_, store_, id_, keys, keyring_));
    (void)head;
    return {};
}

// The ledger says which pack a tail has become; between the renaming and the entry, only its name
// does.
Result<> View::replace_closed_tail(const std::string& path) {
    WV_CHECK(catch_index_up());
    WV_TRY(auto open, index_->open_tails());
    for (std::size_t i = tails_.size(); i-- > 0;) {
        auto still = std::find_if(open.begin(), open.end(), [&](const OpenTail& tail) {
            return tail.opened.path() == tail_infos_[i].path();
        });
        if (still == open.end()) {
            tails_.erase(tails_.begin() + static_cast<std::ptrdiff_t>(i));
            tail_infos_.erase(tail_infos_.begin() + static_cast<std::ptrdiff_t>(i));
        } else if (tails_[i].reader->path() == path) {
            auto pack = pack_in_its_place(still->opened);
            if (!pack && pack.error().code == Errc::not_found)
                return fail(Errc::corrupt, path + " is missing, and no pack is in its place",
                            "copy it back from another copy of this repository");
            if (!pack) return fail(pack.error());
            tails_[i] = std::move(*pack);
        }
    }
    wal_->set_tails(tails_);
    return {};
}

Result<std::vector<HistoryRecord>> View::histories(const std::string& cluster) {
    WV_TRY(auto opened, index_->histories(cluster));
    std::vector<HistoryRecord> found;
    for (const pb::HistoryOpened& history : opened) {
        WV_TRY(HistoryRecord record, history_record(*wal_, history));
        if (auto damaged = damages_.find(record.id); damaged != damages_.end())
            record.damage = damaged->second;
        found.push_back(std::move(record));
    }
    return found;
}

Result<std::vector<GapRecord>> View::gaps(const std::string& cluster) {
    WV_TRY(auto entered, index_->gaps(cluster));
    std::vector<GapRecord> found;
    for (const pb::GapFound& gap : entered) {
        GapRecord record{.cluster = cluster,
                         .history_id = id_from<16>(gap.history_id()),
                         .timeline = gap.timeline(),
                         .from_lsn = Lsn{gap.from_lsn()},
                         .to_lsn = Lsn{gap.to_lsn()},
                         .from_at = WallTime(Micros(gap.from_at_us())),
                         .to_at = WallTime(Micros(gap.to_at_us())),
                         .cause = gap.cause()};
        if (!gap.next_history_id().empty()) record.next = id_from<16>(gap.next_history_id());
        found.push_back(std::move(record));
    }
    return found;
}

Result<std::vector<pb::MarkEntry>> View::own_marks(const Id16& history) {
    WV_TRY(auto marks, index_->marks(history, 0, 0));
    for (const ScannedTail& tail : tails_)
        if (tail.header.history_id == history)
            for (const pb::MarkEntry& mark : tail.reader->footer().marks())
                marks.push_back(mark);
    return marks;
}

Result<std::vector<MarkRecord>> View::marks(const std::string& cluster, WallTime since,
                                            WallTime until,
                                            const std::vector<pb::MarkEntry::Kind>& kinds) {
    WV_TRY(auto opened, index_->histories(cluster));
    std::vector<MarkRecord> found;
    for (const pb::HistoryOpened& history : opened) {
        Id16 id = id_from<16>(history.history_id());
        WV_TRY(auto marks, own_marks(id));
        for (pb::MarkEntry& mark : marks)
            if (is_wanted(mark, since, until, kinds)) found.push_back({id, std::move(mark)});
    }
    return found;
}

Result<std::vector<MarkRecord>> View::lineage_marks(const Id16& history_id, WallTime since,
                                                    WallTime until,
                                                    const std::vector<pb::MarkEntry::Kind>& kinds) {
    WV_TRY(auto stretches, lineage_of(*index_, history_id));
    std::vector<MarkRecord> found;
    for (const Stretch& stretch : stretches) {
        WV_TRY(auto marks, own_marks(stretch.history));
        for (pb::MarkEntry& mark : marks)
            // Its record ends in the stretch: what reaches over the end is the next one's.
            if (mark.end_lsn() <= stretch.to.value && is_wanted(mark, since, until, kinds))
                found.push_back({stretch.history, std::move(mark)});
    }
    return found;
}

Result<std::vector<ClockStep>> View::clock_steps(const Id16& history_id) {
    WV_TRY(auto marks, lineage_marks(history_id, {}, {}, {pb::MarkEntry::CLOCK_STEP}));
    std::vector<ClockStep> steps;
    for (const MarkRecord& found : marks)
        steps.push_back({.at_lsn = Lsn{found.mark.start_lsn()},
                         .stepped_to = WallTime(Micros(found.mark.at_us())),
                         .stepped_from = WallTime(Micros(found.mark.step_from_us()))});
    return steps;
}

Result<std::string> View::timeline_history(const Id16& history_id, TimelineId timeline) {
    WV_TRY(auto content, stored_timeline_history(*index_, history_id, timeline));
    if (content) return std::move(*content);
    return fail(Errc::not_found,
                "no history file of timeline " + std::to_string(timeline) + " is stored");
}

Result<RepositoryView::Totals> View::totals(const std::string& cluster) {
    WV_TRY(Totals totals, index_->totals(cluster));
    for (std::size_t i = 0; i < tails_.size(); ++i) {
        if (tail_infos_[i].cluster() != cluster) continue;
        totals.wal_plain_bytes += tails_[i].end_lsn - tails_[i].header.start_lsn;
        for (const pb::FrameEntry& frame : tails_[i].reader->footer().frames())
            totals.wal_stored_bytes += frame.stored_bytes();
    }
    WV_TRY(auto tails, journal_tails(journal_host(), cluster));
    for (const pb::PackInfo& tail : tails) {
        totals.journal_plain_bytes += tail.plain_bytes();
        totals.journal_stored_bytes += tail.stored_bytes();
    }
    return totals;
}

Result<std::vector<pb::PackInfo>> View::packs(const std::string& cluster) {
    WV_TRY(auto found, index_->base_packs(cluster));
    WV_TRY(auto opened, index_->histories(cluster));
    for (const pb::HistoryOpened& history : opened)
        WV_CHECK(index_->each_wal_pack(id_from<16>(history.history_id()), Lsn{}, false,
                                       [&](const pb::PackInfo& pack) {
                                           found.push_back(pack);
                                           return true;
                                       }));
    for (const pb::PackInfo& tail : tail_infos_)
        if (tail.cluster() == cluster) found.push_back(tail);
    WV_TRY(auto journals, index_->journals().all_packs(cluster));
    std::ranges::move(journals, std::back_inserter(found));
    WV_TRY(auto tails, journal_tails(journal_host(), cluster));
    std::ranges::move(tails, std::back_inserter(found));
    return found;
}

Result<> View::read_manifest(const pb::BackupInfo& backup,
                             const std::function<Result<>(const pb::ManifestHead&)>& on_head,
                             const std::function<Result<>(pb::ManifestFile&)>& on_file) {
    // Many are read one after the other: the packs are listed once for all.
    if (!manifests_.contains(backup.manifest_path())) {
        WV_TRY(auto packs, index_->base_packs(backup.cluster()));
        for (pb::PackInfo& pack : packs)
            if (pack.kind() == pb::PACK_KIND_MANIFEST) manifests_[pack.path()] = std::move(pack);
    }
    const auto info = manifests_.find(backup.manifest_path());
    if (info == manifests_.end())
        return fail(Errc::corrupt,
                    "the manifest " + backup.manifest_path() + " is not in the ledger");
    auto reader = PackReader::open(store_, info->second, keyring_);
    if (!reader)
        return fail_while("read the manifest of backup " + backup.backup_id(), reader.error());
    return read_manifest_pack(store_, **reader, on_head, on_file);
}

Result<std::shared_ptr<const FileCipher>> View::base_cipher(const Id16& file_id,
                                                            std::string& path) {
    {
        std::lock_guard guard(base_packs_mutex_);
        for (auto found = base_packs_.begin(); found != base_packs_.end(); ++found) {
            if (found->first != file_id) continue;
            base_packs_.splice(base_packs_.begin(), base_packs_, found);
            path = found->second.path;
            return found->second.cipher;
        }
    }
    std::shared_lock index_guard(index_mutex_);
    WV_TRY(auto info, index_->pack(file_id));
    index_guard.unlock();
    if (!info)
        return fail(Errc::corrupt,
                    "the index names a pack " + to_hex(file_id) + " that the ledger does not");
    path = info->path();
    WV_TRY(FileCipher cipher, open_cipher(store_, path, keyring_));
    auto shared = std::make_shared<const FileCipher>(std::move(cipher));
    std::lock_guard guard(base_packs_mutex_);
    base_packs_.emplace_front(file_id, BasePack{path, shared});
    if (base_packs_.size() > kBasePacksMax) base_packs_.pop_back();
    return shared;
}

Result<std::vector<CondemnedThere>> View::condemned(const std::string& cluster,
                                                    const std::string& place) {
    WV_TRY(auto packs, index_->retention().condemned(place));
    std::erase_if(packs, [&](const auto& each) { return each.pack.cluster() != cluster; });
    return packs;
}

Result<ChunkPlace> View::place_of_chunk(const Id32& content_id) {
    std::shared_lock guard(index_mutex_);
    WV_TRY(auto place, index_->chunk(content_id));
    if (!place)
        return fail(Errc::not_found,
                    "chunk " + to_hex(content_id) + " is in no pack of this repository");
    return *place;
}

Result<> View::read_chunk(const Id32& content_id, ByteBuffer& plain) {
    WV_TRY(ChunkPlace place, place_of_chunk(content_id));
    std::string path;
    auto cipher = base_cipher(place.file_id, path);
    if (!cipher) return fail(pack_missing(cipher.error(), path));
    auto sealed = store_.get(path, place.offset, place.stored_bytes);
    if (!sealed) return fail(pack_missing(sealed.error(), path));
    FramePlace at{.frame_number = place.frame_number, .content_id = content_id};
    auto opened = (*cipher)->unseal_into(at, *sealed, plain);
    if (!opened) return fail_while("chunk " + to_hex(content_id) + " in " + path, opened.error());
    return {};
}

// A tail, or, when the writer has closed it since it was listed, the packs that hold its WAL now.
Result<> View::verify_tail(const pb::PackInfo& tail, std::uint64_t& checked) {
    const Id16 history = id_from<16>(tail.history_id());
    bool replaced = false;
    for (Lsn at{tail.start_lsn()}; at.value < tail.end_lsn();) {
        WV_TRY(auto source, wal_->source_at(history, at));
        if (!source)
            return fail(Errc::corrupt,
                        tail.path() + ": WAL from " + to_string(at) + " on is not stored any more");
        std::uint64_t now = 0;
        auto verified = check_frames(store_, keyring_, *source->reader, now);
        if (!verified && verified.error().code == Errc::not_found && !replaced) {
            replaced = true;
            WV_CHECK(replace_closed_tail(source->reader->path()));
            continue;
        }
        WV_CHECK(std::move(verified));
        checked += now;
        at = source->end_lsn;
    }
    return {};
}

Result<std::uint64_t> View::verify_pack(const pb::PackInfo& pack, bool decode_wal) {
    std::uint64_t checked = 0;
    if (is_of_journal(pack.kind())) {
        WV_CHECK(check_journal_file(journal_host(), pack, checked));
        return checked;
    }
    if (pack.path().ends_with(".tail")) {
        WV_CHECK(verify_tail(pack, checked));
    } else {
        WV_TRY(auto reader, PackReader::open(store_, pack, keyring_));
        WV_CHECK(check_frames(store_, keyring_, *reader, checked));
    }
    if (!decode_wal || pack.kind() != pb::PACK_KIND_WAL) return checked;
    WV_CHECK(wal_->scan(id_from<16>(pack.history_id()), Lsn{pack.start_lsn()}, Lsn{pack.end_lsn()},
                        [](const WalFinding&) { return true; }));
    return checked;
}

}  // namespace

Result<std::unique_ptr<RepositoryView>> RepositoryView::open(ObjectStore& store,
                                                             const MasterKey& master,
                                                             const Options& options) {
    // The agent may close a tail between the reading of the ledger and of the tail: then look
    // again.
    constexpr int kTries = 5;
    for (int tries = 1;; ++tries) {
        WV_TRY(OpenedRepository opened, open_repository_files(store, master));
        auto view = std::make_unique<View>(store, std::move(opened), options.is_tier);
        WV_CHECK(view->open_index(options));
        view->settle_retention(options);
        auto scanned = view->scan_tails(tries == kTries);
        if (scanned) return view;
        if (scanned.error().code != Errc::not_found) return fail(scanned.error());
    }
}

}  // namespace walvault::storage
