#include <algorithm>

#include "storage/layered_store.h"
#include "storage/read_back.h"
#include "storage/tier_store.h"
#include "tests/simulation/keeping.h"

namespace walvault::simulation {

using namespace storage;
using namespace std::chrono_literals;

namespace {

Result<> add_frame(PackWriter& pack, ByteSpan plain, const Id32& content) {
    FramePlace place;
    place.frame_number = pack.next_frame_number();
    place.content_id = content;
    pb::FrameEntry entry;
    entry.set_frame_number(place.frame_number);
    entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
    if (content != Id32{}) entry.set_content_id(text_of(content));
    return pack.append(pack.cipher().seal(place, plain, 1), std::move(entry));
}

pb::PackInfo pack_of(pb::PackKind kind, const std::string& backup_id) {
    pb::PackInfo pack;
    pack.set_kind(kind);
    pack.set_cluster("main");
    pack.set_backup_id(backup_id);
    return pack;
}

}  // namespace

bool Keeping::pass_time() {
    clock_.at += std::chrono::minutes(random_.one_in(2) ? random_.between(1, 60)
                                                        : random_.between(60, 30 * 60));
    return true;
}

// --- what is written
// --------------------------------------------------------------------------------------

void Keeping::grow() {
    for (std::uint64_t n = random_.between(1, 2); n > 0; --n) {
        clock_.at += std::chrono::milliseconds(random_.between(1, 2000));
        const ByteBuffer body(random_.between(40, 400), static_cast<std::byte>(random_.below(7)));
        wal_.builder.add(
            {.rmgr = 12, .info = 0, .xid = wal_.next_xid, .body = WalBuilder::main_data(body)});
        const Lsn at =
            wal_.builder.add(WalBuilder::commit(wal_.next_xid, to_postgres_micros(clock_.at)));
        wal_.commits.push_back({at, wal_.next_xid++, clock_.at});
    }
    if (random_.one_in(5)) wal_.builder.add_switch();
}

bool Keeping::write_wal() {
    grow();
    must_hold(writer_->store(1 << 20, random_.one_in(2) ? 4096 : 1 << 20), "store WAL");
    if (random_.one_in(4)) must_hold(writer_->store_quiet(clock_.at), "store a proof of quiet");
    return true;
}

bool Keeping::close_tail() {
    must_hold(writer_->close(), "close a tail");
    return true;
}

bool Keeping::begin_backup() {
    if (backup_) return false;
    write_wal();
    Backup begun;
    const MadeCommit& before = wal_.commits.back();
    begun.base.info.set_cluster("main");
    begun.base.info.set_history_id(text_of(writer_->history().id));
    begun.base.info.set_timeline(1);
    begun.base.info.set_start_lsn(before.start_lsn.value);
    begun.base.info.set_started_at_us(before.at.time_since_epoch().count());
    begun.base.info.set_backup_id(must_hold(repository_->begin_backup("main"), "begin a backup"));
    note("  " + begun.base.info.backup_id());
    backup_ = std::move(begun);
    return true;
}

void Keeping::add_content(unsigned number, PackWriter& pack) {
    const std::string content = content_of(number);
    const Id32 id = content_id(repository_->content_key(), as_bytes(content));
    backup_->base.contents.push_back(number);
    for (const pb::FrameEntry& frame : pack.footer().frames())
        if (frame.content_id() == text_of(id)) return;
    if (must_hold(repository_->has_chunk(id), "look for a chunk")) return;
    must_hold(add_frame(pack, as_bytes(content), id), "add a chunk");
}

// New ones, and ones that there were before: of the newest base, or of any, wherever it went.
bool Keeping::store_chunks() {
    if (!backup_) return false;
    const std::string& id = backup_->base.info.backup_id();
    auto pack = must_hold(repository_->begin_pack(pb::PACK_KIND_BASE, *repository_->cluster("main"),
                                                  id, ++backup_->packs),
                          "begin a pack");
    // Now and then many, of which few are shared later: a pack that is mostly dead before long.
    const bool many = random_.one_in(2);
    for (std::uint64_t n = many ? random_.between(4, 8) : random_.between(1, 3); n > 0; --n) {
        const unsigned known = next_content_;
        const bool is_new = known == 0 || (many ? !random_.one_in(4) : random_.one_in(3));
        const unsigned reach = random_.one_in(2) ? std::min(known, 5u) : known;
        add_content(
            is_new ? next_content_++ : known - 1 - static_cast<unsigned>(random_.below(reach)),
            *pack);
    }
    if (pack->next_frame_number() == 0) return true;
    must_hold(repository_->commit_pack(std::move(pack), pack_of(pb::PACK_KIND_BASE, id)),
              "commit a pack of chunks");
    return true;
}

bool Keeping::complete_backup() {
    if (!backup_ || backup_->base.contents.empty()) return false;
    pb::BackupInfo& base = backup_->base.info;
    auto manifest =
        must_hold(repository_->begin_pack(pb::PACK_KIND_MANIFEST, *repository_->cluster("main"),
                                          base.backup_id(), 0),
                  "begin a manifest");
    base.set_manifest_path(manifest->path());
    write_wal();
    base.set_stop_lsn(wal_.commits.back().start_lsn.value);
    base.set_stopped_at_us(wal_.commits.back().at.time_since_epoch().count());
    pb::ManifestBatch batch;
    pb::ManifestFile& file = *batch.add_files();
    file.set_path("file");
    for (unsigned number : backup_->base.contents)
        file.mutable_content_ids()->append(
            text_of(content_id(repository_->content_key(), as_bytes(content_of(number)))));
    must_hold(add_frame(*manifest, as_bytes(batch.SerializeAsString()), {}), "add files");
    pb::ManifestBatch last;
    *last.mutable_head()->mutable_backup() = base;
    must_hold(add_frame(*manifest, as_bytes(last.SerializeAsString()), {}), "add the head");
    must_hold(repository_->commit_pack(std::move(manifest),
                                       pack_of(pb::PACK_KIND_MANIFEST, base.backup_id())),
              "commit a manifest");
    backup_->is_entered = true;
    must_hold(repository_->complete_backup(base), "complete a backup");
    bases_[base.backup_id()] = backup_->base;
    backup_.reset();
    return true;
}

bool Keeping::fail_backup() {
    if (!backup_) return false;
    const std::string id = backup_->base.info.backup_id();
    backup_.reset();
    must_hold(repository_->fail_backup("main", id, "simulated"), "fail a backup");
    return true;
}

bool Keeping::take_backup() {
    if (!backup_) begin_backup();
    for (std::uint64_t n = random_.between(1, 2); n > 0; --n)
        store_chunks();
    return complete_backup();
}

// --- what is let go
// --------------------------------------------------------------------------------------

bool Keeping::survey() {
    if (surveys_.size() >= 3) return false;
    return survey_place(some_place(), {});
}

bool Keeping::survey_place(const std::string& place, const RewriteRules& rewriting) {
    RetentionRules rules;
    rules.window = std::chrono::hours(random_.between(1, random_.one_in(2) ? 6 : 60));
    rules.protect_min = static_cast<unsigned>(random_.between(1, 2));
    if (random_.one_in(2))
        rules.then.push_back({RetentionPeriods::Unit::day, unsigned(random_.between(1, 3))});
    if (random_.one_in(4))
        rules.then.push_back({RetentionPeriods::Unit::week, unsigned(random_.between(1, 3))});
    if (!random_.one_in(4)) write_wal();
    auto store = layered_store();
    auto view = open_view(*store, place, true);
    const bool anew = rewriting.is_on || random_.one_in(2);
    const std::string judged = anew ? "" : promises_[place].judged;
    auto found = survey_retention(*view, "main", rules, clock_.at, judged, place, rewriting);
    if (!found && found.error().code == Errc::refused) return true;  // nothing came in for a day
    surveys_.push_back(must_hold(std::move(found), "survey"));
    const std::string& unjudged = surveys_.back().bases_unjudged;
    hold(unjudged.empty() || unjudged.find("running") != std::string::npos ||
             unjudged.find("window") != std::string::npos,
         "bases cannot be judged: " + unjudged);
    note("  of \"" + place + "\"");
    return true;
}

// As the agent does, with nothing between.
bool Keeping::survey_and_condemn() {
    const std::size_t before = surveys_.size();
    if (!survey() || surveys_.size() == before) return false;
    std::swap(surveys_.front(), surveys_.back());
    return condemn_by(0);
}

bool Keeping::condemn() { return !surveys_.empty() && condemn_by(random_.below(surveys_.size())); }

bool Keeping::condemn_by(std::size_t number) {
    const auto at = surveys_.begin() + static_cast<std::ptrdiff_t>(number);
    const RetentionSurvey survey = std::move(*at);
    surveys_.erase(at);
    if (!survey.place.empty() && tier(survey.place).is_removed) return true;
    Promise& promise = promises_[survey.place];
    const WallTime before = promise.window_from;
    // Also where the process ends before all of it is entered.
    promise.window_from = std::max(before, survey.plan.window_from.value_or(WallTime{}));
    auto done = repository_->condemn(survey);
    if (!done && done.error().code == Errc::busy) {
        promise.window_from = before;
        ++outcome_.counts["condemned too late"];
        return true;
    }
    must_hold(std::move(done), "condemn");
    promise.judged = survey.judged;
    for (const pb::Condemned& entry : survey.condemned()) {
        outcome_.counts["condemned packs"] += static_cast<unsigned>(entry.packs_size());
        for (const auto& pack : entry.packs())
            note("  " + pack.pack().path() + " at \"" + survey.place + "\"");
    }
    return true;
}

// Of what one place has whole. Surveys from before are not condemned by any more.
bool Keeping::place_hold() {
    const std::string place = some_place();
    auto store = layered_store();
    auto view = open_view(*store, place, true);
    const auto bases = must_hold(view->backups("main"), "backups");
    if (bases.empty()) return false;
    const pb::BackupInfo* base = &bases[random_.below(bases.size())];
    pb::HoldPlaced wanted;
    wanted.set_cluster("main");
    wanted.set_reason("test");
    Hold placed{.place = place, .base_id = base->backup_id(), .from = {}, .to = {}};
    if (random_.one_in(2)) {
        wanted.set_backup_id(base->backup_id());
    } else {
        // Not later than now: a base that is still to come would be the one it begins with.
        placed.from = std::min(clock_.at, WallTime(Micros(base->stopped_at_us())) +
                                              std::chrono::minutes(random_.below(120)));
        for (const pb::BackupInfo& each : bases)
            if (WallTime(Micros(each.stopped_at_us())) <= *placed.from) base = &each;
        placed.base_id = base->backup_id();
        wanted.set_from_at_us(placed.from->time_since_epoch().count());
        if (!random_.one_in(4)) {
            placed.to = *placed.from + std::chrono::minutes(random_.below(20 * 60));
            wanted.set_to_at_us(placed.to->time_since_epoch().count());
        }
        const Id16 history = id_from<16>(base->history_id());
        Lsn end;
        for (const HistoryRecord& each : must_hold(view->histories("main"), "histories"))
            if (each.id == history) end = each.end_lsn;
        // As the verb: not where the window has moved on.
        if (!view->require_coverage(history, Lsn{base->start_lsn()}, end)) return true;
    }
    const std::string id = must_hold(repository_->place_hold(wanted, "test"), "place a hold");
    note("  " + id + " of " + placed.base_id + " at \"" + place + "\"");
    holds_[id] = std::move(placed);
    return true;
}

bool Keeping::release_hold() {
    if (holds_.empty()) return false;
    auto at = holds_.begin();
    std::advance(at, random_.below(holds_.size()));
    pb::HoldReleased released;
    released.set_cluster("main");
    released.set_hold_id(at->first);
    holds_.erase(at);
    note("  " + released.hold_id());
    must_hold(repository_->release_hold(std::move(released), "test"), "release a hold");
    return true;
}

// Of packs that are mostly dead by a survey that may be old by the time the copy is entered. That
// somebody reads does not matter here: it is only waited for to spare the disk.
bool Keeping::copy_live_chunks() {
    if (copy_ || surveys_.size() >= 3) return false;
    const std::size_t before = surveys_.size();
    survey_place(some_place(), {.is_on = true, .grace = random_.one_in(2) ? 0s : 3h});
    if (surveys_.size() == before) return true;
    const auto groups = rewrite_groups(surveys_.back().rewrites);
    if (groups.empty()) return true;
    copy_ = must_hold(repository_->begin_rewrite(groups.front()), "begin a copy");
    must_hold(copy_->copy(), "copy live chunks");
    outcome_.counts["packs copied from"] += groups.front().size();
    for (const RewriteCandidate& source : groups.front())
        note("  of " + source.pack.path());
    return true;
}

bool Keeping::enter_copy() {
    if (!copy_) return false;
    const std::string path = copy_->has_pack() ? copy_->pack().path() : "none";
    must_hold(repository_->enter_rewrite(std::move(copy_)), "enter a copy");
    note("  " + path);
    return true;
}

std::vector<Lease> Keeping::leases_at(const std::string& place) {
    auto leases = must_hold(valid_leases(*directory_store(), clock_.at), "leases here");
    if (place.empty()) return leases;
    auto there = must_hold(valid_leases(*tier(place).objects, clock_.at), "leases there");
    for (Lease& lease : there)
        lease.since = {};  // as the agent does
    leases.insert(leases.end(), there.begin(), there.end());
    return leases;
}

std::map<std::string, std::vector<std::string>> Keeping::proved() {
    std::map<std::string, std::vector<std::string>> paths;
    auto here = directory_store();
    for (const CondemnedThere& each : must_hold(repository_->condemned(""), "condemned")) {
        bool all = true;
        for (const std::string& place : each.kept_at) {
            Tier& there = tier(place);
            all = all && there.ledger_sequence >= each.sequence &&
                  read_back(*here, *there.objects, each.pack, random_.number());
        }
        if (all) paths[each.pack.path()] = each.kept_at;
    }
    return paths;
}

Deletions Keeping::delete_at(const std::string& place, std::chrono::seconds grace,
                             std::size_t most) {
    DeletionOrder order{
        .place = place, .leases = leases_at(place), .grace = grace, .most = most, .proved = {}};
    if (place.empty())
        order.proved = proved();
    else
        order.through_sequence = tier(place).ledger_sequence;
    Deletions done = must_hold(repository_->delete_condemned(order), "delete");
    outcome_.counts["deleted packs"] += done.pack_count;
    if (!done.waits_for.empty()) ++outcome_.counts["deletions that wait"];
    return done;
}

bool Keeping::let_go() {
    const std::string place = some_place();
    note("  at \"" + place + "\"");
    delete_at(place, random_.one_in(2) ? 0s : 3h, random_.one_in(3) ? 1 : 1000);
    return true;
}

// --- what is copied
// --------------------------------------------------------------------------------------

void Keeping::offload_to(Tier& to, bool may_be_cut) {
    if (!to.offloader)
        to.offloader = must_hold(Offloader::open(*to.repository, *to.cut, *master_,
                                                 {.name = to.name,
                                                  .keeps =
                                                      [this, &to](const pb::PackInfo& pack) {
                                                          return repository_->keeps(pack, to.name);
                                                      }}),
                                 "open an offloader");
    std::uint64_t rounds = 0;
    to.cut->cut_at(may_be_cut && random_.one_in(2) ? random_.between(1, 24) : 0, random_.one_in(2));
    std::uint64_t objects = may_be_cut && random_.one_in(3) ? random_.below(8) : ~0ull;
    for (bool complete = false; !complete;) {
        auto round = to.offloader->offload(writer_->snapshot(), [&] { return objects-- > 0; });
        if (to.cut->was_cut()) {
            ++outcome_.counts["offloads cut off"];
            break;
        }
        const Offloader::Round done = must_hold(std::move(round), "offload");
        hold(!done.failure, "a pack is offloaded");
        to.ledger_sequence = done.ledger_sequence;
        to.is_readable = to.is_readable || to.ledger_sequence > 0;
        complete = done.is_complete || may_be_cut;
        hold(++rounds < 20, "a round never ends");
    }
    if (!to.cut->was_cut()) return;
    to.cut->cut_at(0, false);
    if (random_.one_in(3)) to.files.cut_power(random_);
}

bool Keeping::offload() {
    Tier* to = some_tier();
    if (to == nullptr) return false;
    note("  to " + to->name);
    if (to->is_away) return true;
    offload_to(*to, true);
    return true;
}

// What is written and let go meanwhile has to wait for it.
bool Keeping::tier_goes_or_comes() {
    Tier* at = some_tier();
    if (at == nullptr) return false;
    at->is_away = !at->is_away;
    return true;
}

bool Keeping::add_tier() {
    if (tiers_.size() >= 2) return false;
    files_.crash_in = 0;
    auto made = std::make_unique<Tier>();
    made->name = "tier" + std::to_string(tiers_.size() + 1);
    must_hold(made->files.make_directories("/tier", 0700), "make /tier");
    must_hold(made->files.sync_directory("/"), "sync /");
    made->objects = make_directory_store(made->files, "/tier");
    made->cut = std::make_unique<CutStore>(*made->objects);
    must_hold(initialize_tier(*directory_store(), *made->objects, *master_, made->name),
              "make a tier");
    made->repository = directory_store();
    Promise promise = promises_[""];
    promise.judged.clear();
    auto store = layered_store();
    auto here = open_view(*store, "", true);
    for (const auto& [id, base] : bases_)
        promise.never_there.insert(id);
    for (const pb::BackupInfo& base : must_hold(here->backups("main"), "backups"))
        promise.never_there.erase(base.backup_id());
    promises_[made->name] = std::move(promise);
    tiers_.push_back(std::move(made));
    must_hold(repository_->add_place(tiers_.back()->name, true), "add a tier");
    // An agent reads its configuration, and with it of its tiers, when it starts.
    close_repository();
    open_repository(false);
    return true;
}

bool Keeping::remove_tier() {
    Tier* gone = some_tier();
    if (gone == nullptr) return false;
    gone->is_removed = true;
    must_hold(repository_->remove_place(gone->name), "remove a tier");
    return true;
}

// --- what is read
// --------------------------------------------------------------------------------------

void Keeping::plan_restore(std::unique_ptr<Restore> restore) {
    RepositoryView& view = *restore->view;
    const auto bases = must_hold(view.backups("main"), "backups");
    if (bases.empty()) return;
    const pb::BackupInfo& chosen = bases[random_.below(bases.size())];
    auto known = bases_.find(chosen.backup_id());
    hold(known != bases_.end(), "a base that never was complete: " + chosen.backup_id());
    restore->base = known->second;
    if (!has_its_wal(view, restore->base)) return;
    restore->history = id_from<16>(chosen.history_id());
    restore->from = Lsn{chosen.start_lsn()}.round_down(WalBuilder::kSegmentBytes);
    restore->to = Lsn{chosen.stop_lsn()};
    for (const HistoryRecord& history : must_hold(view.histories("main"), "histories"))
        if (history.id == restore->history && history.end_lsn > restore->to &&
            view.require_coverage(history.id, restore->from, history.end_lsn))
            restore->to = history.end_lsn;
    note("  of " + chosen.backup_id() + " from " + restore->name);
    restores_.push_back(std::move(restore));
}

bool Keeping::begin_restore() {
    if (restores_.size() >= 3) return false;
    files_.crash_in = 0;  // it is a process of its own
    auto restore = std::make_unique<Restore>();
    restore->name = "the host";
    restore->lease_store = directory_store();
    restore->lease = must_hold(HeldLease::take(*restore->lease_store, "a restore", clock_, {},
                                               std::chrono::hours(24 * 3650)),
                               "take a lease");
    restore->store = layered_store();
    const bool has_index = !random_.one_in(4);
    restore->view = open_view(*restore->store, std::nullopt, has_index);
    plan_restore(std::move(restore));
    return true;
}

// As a machine that has nothing else.
bool Keeping::begin_restore_from_tier() {
    Tier* from = some_tier();
    if (from == nullptr || !from->is_readable || restores_.size() >= 3) return false;
    auto restore = std::make_unique<Restore>();
    restore->name = from->name;
    restore->lease_store = make_directory_store(from->files, "/tier");
    restore->lease = must_hold(HeldLease::take(*restore->lease_store, "a restore", clock_, {},
                                               std::chrono::hours(24 * 3650)),
                               "take a lease on a tier");
    restore->store = make_tier_store(make_directory_store(from->files, "/tier"));
    restore->view = open_view(*restore->store, from->name, false);
    plan_restore(std::move(restore));
    return true;
}

bool Keeping::end_restore() {
    if (restores_.empty()) return false;
    const std::size_t which = random_.below(restores_.size());
    std::unique_ptr<Restore> restore = std::move(restores_[which]);
    restores_.erase(restores_.begin() + static_cast<std::ptrdiff_t>(which));
    files_.crash_in = 0;
    finish(*restore);
    return true;
}

bool Keeping::look() {
    files_.crash_in = 0;
    const std::string place = some_place();
    check_place(place, random_.one_in(2));
    if (!place.empty() && tier(place).is_readable) check_tier_reader(tier(place), false);
    return true;
}

bool Keeping::kill() {
    files_.is_frozen = true;  // from here on it does nothing any more
    return true;
}

}  // namespace walvault::simulation
