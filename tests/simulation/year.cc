#include "tests/simulation/year.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "storage/layered_store.h"
#include "storage/read_back.h"
#include "storage/tier_store.h"

namespace walvault::simulation {

using namespace storage;
using namespace std::chrono_literals;

namespace {

const std::string kRoot = "/srv/repository";
const std::string kTier = "offsite";
constexpr unsigned kBlocks = 12;
constexpr unsigned kDaysBetweenPasses = 4;  // of the tier
const DiaryRules kHere{.window = 24h, .days = 5};
const DiaryRules kThere{.window = 72h, .days = 10, .weeks = 6, .months = 12};

// Nothing that zstd makes smaller.
ByteBuffer bytes_of(unsigned content) {
    Random random(content * 7919ull + 1);
    ByteBuffer bytes(300 + random.below(300));
    for (std::byte& byte : bytes)
        byte = static_cast<std::byte>(random.number());
    return bytes;
}

Result<> add_frame(PackWriter& pack, ByteSpan plain, const Id32& name) {
    FramePlace place;
    place.frame_number = pack.next_frame_number();
    place.content_id = name;
    pb::FrameEntry entry;
    entry.set_frame_number(place.frame_number);
    entry.set_plain_bytes(static_cast<std::uint32_t>(plain.size()));
    if (name != Id32{}) entry.set_content_id(text_of(name));
    return pack.append(pack.cipher().seal(place, plain, 1), std::move(entry));
}

void require_same(const std::set<std::string>& are, const std::set<std::string>& should_be,
                  const std::string& where) {
    for (const std::string& path : are)
        hold(should_be.contains(path), where + " has " + path + ", which no rule keeps");
    for (const std::string& path : should_be)
        hold(are.contains(path), where + " lacks " + path + ", which the rules keep");
}

}  // namespace

Year::Year(std::uint64_t seed, unsigned hours) : hours_(hours), random_(seed), secrets_(seed) {
    log::take_lines([](const std::string&) {});
}

Year::~Year() {
    offloader_.reset();
    writer_.reset();
    repository_.reset();
    log::take_lines({});
}

std::string Year::run() {
    try {
        set_up();
        for (hour_ = 1; hour_ <= hours_; ++hour_) {
            live_an_hour();
            take_base();
            if (hour_ % 6 == 0) close_tail();
            if (hour_ % 24 != 0) continue;
            live_a_day();
        }
    } catch (const Broken& broken) {
        return "hour " + std::to_string(hour_) + ": " + broken.what;
    }
    return "";
}

// The tier less often: its rules reach further, and it has more to look at.
void Year::live_a_day() {
    const bool expires_there = hour_ % (24 * kDaysBetweenPasses) == 0;
    place_or_release();
    offload();
    check("");
    pass("");
    if (expires_there) {
        check(kTier);
        pass(kTier);
    }
    offload();
    if (expires_there) let_go(kTier);
    let_go("");
    offload();
    check_files("");
    if (expires_there) check_files(kTier);
    // What was copied by the tier's pass lies in the copies now, here too: of what a hold keeps at
    // both, packs may be mostly dead here until the next day.
    const std::string last = expires_there ? kTier : "";
    hold(model_.mostly_dead(last).empty(), "\"" + last + "\" has packs that are mostly dead");
}

void Year::set_up() {
    master_ = MasterKey::generate();
    for (SimulatedFiles* files : {&files_, &tier_files_}) {
        must_hold(files->make_directories("/srv", 0700), "make /srv");
        must_hold(files->sync_directory("/"), "sync /");
    }
    must_hold(Repository::create(files_, kRoot, *master_, clock_), "create");
    here_ = make_directory_store(files_, kRoot);
    there_ = make_directory_store(tier_files_, "/srv");
    RepositoryOptions options;
    options.host = "simulated";
    options.version = "test";
    options.wal_level = 1;
    options.index_home = &indexes_;
    options.packs_store = layered_store();
    repository_ = must_hold(Repository::open(files_, kRoot, *master_, clock_, options), "open");
    writer_ = std::make_unique<HistoryWriter>(*repository_, wal_);
    must_hold(writer_->begin(), "begin a history");
    tail_start_ = wal_.builder.start();
    must_hold(initialize_tier(*here_, *there_, *master_, kTier), "make a tier");
    must_hold(repository_->add_place(kTier, true), "add a tier");
    offloader_ = must_hold(Offloader::open(*here_, *there_, *master_,
                                           {.name = kTier,
                                            .keeps =
                                                [this](const pb::PackInfo& pack) {
                                                    return repository_->keeps(pack, kTier);
                                                }}),
                           "open an offloader");
    model_.add_place("", kHere);
    model_.add_place(kTier, kThere);
    blocks_.assign(kBlocks, 0);
    for (unsigned& block : blocks_)
        block = next_content_++;
}

std::unique_ptr<ObjectStore> Year::layered_store() {
    std::vector<std::unique_ptr<ObjectStore>> further;
    further.push_back(make_tier_store(make_directory_store(tier_files_, "/srv")));
    return make_layered_store(make_directory_store(files_, kRoot), std::move(further));
}

std::unique_ptr<RepositoryView> Year::open_view(ObjectStore& store, const std::string& place) {
    RepositoryView::Options options;
    options.index_directory = kRoot + "/index";
    options.scratch_directory = "/scratch";
    options.index_home = &indexes_;
    options.place = place;
    return must_hold(RepositoryView::open(store, *master_, options), "open a view");
}

// Some of it changes all the time, some now and then, some hardly ever.
void Year::live_an_hour() {
    for (unsigned i = 0; i < kBlocks; ++i)
        if (i < 2 || random_.one_in(i < 6 ? 6 : 200)) blocks_[i] = next_content_++;
    const WallTime end = clock_.at + 1h;
    for (int n = 0; n < 3; ++n) {
        clock_.at += std::chrono::milliseconds(random_.between(1000, 15 * 60 * 1000));
        const ByteBuffer body(random_.between(40, 400), static_cast<std::byte>(random_.below(7)));
        wal_.builder.add(
            {.rmgr = 12, .info = 0, .xid = wal_.next_xid, .body = WalBuilder::main_data(body)});
        const Lsn at =
            wal_.builder.add(WalBuilder::commit(wal_.next_xid, to_postgres_micros(clock_.at)));
        wal_.commits.push_back({at, wal_.next_xid++, clock_.at});
    }
    clock_.at = end;
}

DiaryPack Year::diary_of(const pb::PackInfo& info, const pb::PackFooter& footer) {
    DiaryPack pack;
    pack.kind =
        info.kind() == pb::PACK_KIND_BASE ? DiaryPack::Kind::chunks : DiaryPack::Kind::manifest;
    pack.bytes = must_hold(here_->info(info.path()), "size of a pack").size_bytes;
    pack.base_id = info.backup_id();
    for (const pb::FrameEntry& frame : footer.frames())
        if (!frame.content_id().empty())
            pack.chunks[contents_.at(id_from<32>(frame.content_id()))] = frame.stored_bytes();
    return pack;
}

void Year::take_base() {
    const ClusterRecord cluster = *repository_->cluster("main");
    pb::BackupInfo base;
    base.set_cluster("main");
    base.set_history_id(text_of(writer_->history().id));
    base.set_timeline(1);
    base.set_start_lsn(wal_.commits[wal_.commits.size() - 2].start_lsn.value);
    base.set_stop_lsn(wal_.commits.back().start_lsn.value);
    base.set_started_at_us(wal_.commits[wal_.commits.size() - 2].at.time_since_epoch().count());
    base.set_stopped_at_us(wal_.commits.back().at.time_since_epoch().count());
    base.set_backup_id(must_hold(repository_->begin_backup("main"), "begin a backup"));
    auto chunks = must_hold(
        repository_->begin_pack(pb::PACK_KIND_BASE, cluster, base.backup_id(), 1), "begin a pack");
    pb::ManifestBatch batch;
    pb::ManifestFile& file = *batch.add_files();
    file.set_path("file");
    for (unsigned content : blocks_) {
        const ByteBuffer plain = bytes_of(content);
        const Id32 name = content_id(repository_->content_key(), plain);
        contents_[name] = content;
        names_[content] = name;
        file.mutable_content_ids()->append(text_of(name));
        if (!must_hold(repository_->has_chunk(name), "look for a chunk"))
            must_hold(add_frame(*chunks, plain, name), "add a chunk");
    }
    pb::PackInfo info;
    info.set_cluster("main");
    info.set_backup_id(base.backup_id());
    info.set_kind(pb::PACK_KIND_BASE);
    const pb::PackFooter footer = chunks->footer();
    const pb::PackInfo made =
        must_hold(repository_->commit_pack(std::move(chunks), info), "commit chunks");
    model_.add_pack(made.path(), diary_of(made, footer));
    auto manifest =
        must_hold(repository_->begin_pack(pb::PACK_KIND_MANIFEST, cluster, base.backup_id(), 0),
                  "begin a manifest");
    base.set_manifest_path(manifest->path());
    must_hold(add_frame(*manifest, as_bytes(batch.SerializeAsString()), {}), "add files");
    pb::ManifestBatch last;
    *last.mutable_head()->mutable_backup() = base;
    must_hold(add_frame(*manifest, as_bytes(last.SerializeAsString()), {}), "add the head");
    info.set_kind(pb::PACK_KIND_MANIFEST);
    const pb::PackInfo entered =
        must_hold(repository_->commit_pack(std::move(manifest), info), "commit a manifest");
    model_.add_pack(entered.path(), diary_of(entered, {}));
    must_hold(writer_->store(1 << 20, ~std::size_t{0}), "store WAL");
    must_hold(repository_->complete_backup(base), "complete a backup");
    const DiaryBase noted{.id = base.backup_id(),
                          .stopped_at = WallTime(Micros(base.stopped_at_us())),
                          .start = Lsn{base.start_lsn()},
                          .stop = Lsn{base.stop_lsn()},
                          .contents = blocks_};
    model_.add_base(noted);
    bases_[noted.id] = noted;
    infos_[noted.id] = base;
    ++counts_.bases;
}

void Year::close_tail() {
    if (hour_ % 48 == 0) wal_.builder.add_switch();
    must_hold(writer_->store(1 << 20, ~std::size_t{0}), "store WAL");
    must_hold(writer_->close(), "close a tail");
    for (const FileInfo& file : must_hold(files_.list(kRoot + "/main/wal"), "list WAL")) {
        if (!file.name.ends_with(".pack") || !wal_paths_.insert(file.name).second) continue;
        model_.add_pack("main/wal/" + file.name, {.kind = DiaryPack::Kind::wal,
                                                  .bytes = file.size_bytes,
                                                  .start = tail_start_,
                                                  .end = writer_->flushed,
                                                  .base_id = "",
                                                  .chunks = {}});
    }
    tail_start_ = writer_->flushed;
}

void Year::offload() {
    for (int rounds = 0;; ++rounds) {
        hold(rounds < 20, "a round never ends");
        const Offloader::Round done =
            must_hold(offloader_->offload(writer_->snapshot(), [] { return true; }), "offload");
        tier_sequence_ = done.ledger_sequence;
        if (done.is_complete) return;
    }
}

WallTime Year::seen() const { return wal_.commits.back().at; }

RetentionRules Year::rules_of(const std::string& place) const {
    const DiaryRules& rules = place.empty() ? kHere : kThere;
    RetentionRules chosen{.window = rules.window, .then = {}, .protect_min = rules.newest};
    using Unit = RetentionPeriods::Unit;
    if (rules.days > 0) chosen.then.push_back({Unit::day, rules.days});
    if (rules.weeks > 0) chosen.then.push_back({Unit::week, rules.weeks});
    if (rules.months > 0) chosen.then.push_back({Unit::month, rules.months});
    return chosen;
}

// --- holds
// ------------------------------------------------------------------------------------------------

namespace {

constexpr std::size_t kHoldsMax = 5;

WallTime time_of(std::int64_t micros) { return WallTime(Micros(micros)); }
bool is_over(const pb::HoldPlaced& hold, WallTime now) {
    return hold.until_at_us() != 0 && time_of(hold.until_at_us()) <= now;
}

}  // namespace

void Year::place_or_release() {
    if (!holds_.empty() && random_.one_in(6)) {
        const std::size_t number = random_.below(holds_.size());
        pb::HoldReleased released;
        released.set_cluster("main");
        released.set_hold_id(holds_[number].hold_id());
        must_hold(repository_->release_hold(std::move(released), "test"), "release a hold");
        holds_.erase(holds_.begin() + static_cast<std::ptrdiff_t>(number));
    }
    if (holds_.size() < kHoldsMax && random_.one_in(2)) place_hold();
    std::set<std::string> told, placed;
    auto store = layered_store();
    for (const HoldRecord& each : must_hold(open_view(*store, "")->holds("main"), "holds"))
        told.insert(each.id);
    for (const pb::HoldPlaced& each : holds_)
        placed.insert(each.hold_id());
    hold(told == placed, "the holds are others than were placed");
}

// Of what the tier's window has, which goes back furthest; its end may be still to come.
void Year::place_hold() {
    pb::HoldPlaced wanted;
    wanted.set_cluster("main");
    wanted.set_reason("test");
    const auto& bases = model_.bases(kTier);
    if (random_.one_in(3)) {
        wanted.set_backup_id(bases[random_.below(bases.size())].id);
    } else {
        const WallTime first = std::max(model_.window_from(kTier), bases.front().stopped_at);
        if (first >= seen()) return;
        const auto reach = std::chrono::duration_cast<std::chrono::minutes>(seen() - first).count();
        const WallTime from =
            first + std::chrono::minutes(random_.below(static_cast<std::uint64_t>(reach) + 1));
        wanted.set_from_at_us(from.time_since_epoch().count());
        const auto last = from + std::chrono::minutes(random_.between(1, 30 * 60));
        if (!random_.one_in(6)) wanted.set_to_at_us(last.time_since_epoch().count());
    }
    // What has no end is over before it holds everything.
    if (random_.one_in(3) || (wanted.backup_id().empty() && wanted.to_at_us() == 0))
        wanted.set_until_at_us(
            (clock_.at + std::chrono::hours(random_.between(10, 300))).time_since_epoch().count());
    wanted.set_hold_id(must_hold(repository_->place_hold(wanted, "test"), "place a hold"));
    holds_.push_back(wanted);
    ++counts_.holds;
}

const MadeCommit* Year::first_behind(WallTime at) const {
    const auto found = std::ranges::find_if(
        wal_.commits, [&](const MadeCommit& commit) { return commit.at > at; });
    return found == wal_.commits.end() ? nullptr : &*found;
}

std::vector<DiaryHold> Year::diary_of_holds() const {
    std::vector<DiaryHold> diary;
    for (const pb::HoldPlaced& each : holds_) {
        if (is_over(each, clock_.at)) continue;
        DiaryHold noted{.base_id = each.backup_id(),
                        .from = time_of(each.from_at_us()),
                        .to = each.to_at_us() == 0 ? WallTime::max() : time_of(each.to_at_us()),
                        .end = kNoEnd};
        if (const MadeCommit* behind = first_behind(noted.to)) noted.end = behind->start_lsn;
        diary.push_back(std::move(noted));
    }
    return diary;
}

// Held moments that the tier's rules alone would have let go.
void Year::check_holds(RepositoryView& view, const std::string& place) {
    for (const pb::HoldPlaced& each : holds_) {
        if (is_over(each, clock_.at)) continue;
        if (!each.backup_id().empty()) {
            check_base(view, bases_.at(each.backup_id()));
            continue;
        }
        const WallTime from = time_of(each.from_at_us());
        const WallTime to =
            each.to_at_us() == 0 ? seen() : std::min(seen(), time_of(each.to_at_us()));
        if (to <= from) continue;
        const auto reach = std::chrono::duration_cast<std::chrono::seconds>(to - from).count();
        for (WallTime at :
             {from, to,
              from + std::chrono::seconds(random_.below(static_cast<std::uint64_t>(reach) + 1))}) {
            check_second(view, place, at);
            if (at < model_.window_from(place)) ++counts_.held_restores;
        }
    }
}

// As the agent: looked at, condemned, rewritten; and, where something was, looked at again.
void Year::pass(const std::string& place) {
    auto store = layered_store();
    auto view = open_view(*store, place);
    const RetentionSurvey survey = must_hold(
        survey_retention(*view, "main", rules_of(place), clock_.at, "", place, {.is_on = true}),
        "survey");
    hold(survey.bases_unjudged.empty(), survey.bases_unjudged);
    ++counts_.surveys;
    model_.set_holds(diary_of_holds());
    model_.expire(place, clock_.at, seen());
    must_hold(repository_->condemn(survey), "condemn");
    rewrite(place, survey);
}

void Year::rewrite(const std::string& place, const RetentionSurvey& survey) {
    std::set<std::string> planned;
    for (const RewriteCandidate& each : survey.rewrites)
        planned.insert(each.pack.path());
    require_same(planned, model_.mostly_dead(place), "what is rewritten at \"" + place + "\"");
    if (planned.empty()) return;
    for (const auto& group : rewrite_groups(survey.rewrites)) {
        auto copy = must_hold(repository_->begin_rewrite(group), "begin a copy");
        must_hold(copy->copy(), "copy live chunks");
        const pb::PackInfo info = copy->pack();
        const pb::PackFooter footer = copy->footer();
        std::set<unsigned> wanted;
        for (const RewriteCandidate& each : group)
            wanted.merge(model_.living(place, each.pack.path()));
        DiaryPack made = diary_of(info, footer);
        hold(wanted.size() == made.chunks.size() &&
                 std::ranges::all_of(wanted,
                                     [&](unsigned each) { return made.chunks.contains(each); }),
             info.path() + " has not what lives of the packs it was copied from");
        must_hold(repository_->enter_rewrite(std::move(copy)), "enter a copy");
        model_.add_pack(info.path(), std::move(made));
        counts_.rewritten += group.size();
    }
    auto store = layered_store();
    auto view = open_view(*store, place);
    const RetentionSurvey again = must_hold(
        survey_retention(*view, "main", rules_of(place), clock_.at, "", place, {}), "look again");
    must_hold(repository_->condemn(again), "condemn again");
    model_.expire(place, clock_.at, seen());
}

void Year::let_go(const std::string& place) {
    DeletionOrder order{.place = place, .leases = {}, .grace = 0s, .most = 100'000, .proved = {}};
    if (!place.empty()) order.through_sequence = tier_sequence_;
    if (place.empty())
        for (const CondemnedThere& each : must_hold(repository_->condemned(""), "condemned"))
            if (each.kept_at.empty() || read_back(*here_, *there_, each.pack, random_.number()))
                order.proved[each.pack.path()] = each.kept_at;
    const Deletions done = must_hold(repository_->delete_condemned(order), "delete");
    hold(done.condemned_count == 0, "what is condemned stays for " + done.waits_for);
    counts_.deleted += done.pack_count;
}

// --- what must hold
// ------------------------------------------------------------------------------------------------

void Year::check_files(const std::string& place) {
    const SimulatedFiles& files = place.empty() ? files_ : tier_files_;
    const std::string root = (place.empty() ? kRoot : "/srv") + "/";
    std::set<std::string> there;
    std::uint64_t bytes = 0;
    for (const auto& [path, size] : files.sizes()) {
        hold(!path.ends_with(".tmp"), path + " was left");
        if (!path.starts_with(root + "main/") || !path.ends_with(".pack")) continue;
        there.insert(path.substr(root.size()));
        bytes += size;
    }
    require_same(there, model_.packs(place), "\"" + place + "\"");
    const double implied = static_cast<double>(model_.bytes(place));
    const double off = std::abs(static_cast<double>(bytes) - implied) / implied;
    hold(off <= 0.05, "\"" + place + "\" has " + std::to_string(bytes) +
                          " bytes, the rules imply " + std::to_string(model_.bytes(place)));
    counts_.off_most = std::max(counts_.off_most, off);
    (place.empty() ? counts_.here_bytes : counts_.there_bytes) = bytes;
}

void Year::check(const std::string& place) {
    auto store = layered_store();
    auto view = open_view(*store, place);
    std::set<std::string> listed, kept;
    for (const pb::BackupInfo& base : must_hold(view->backups("main"), "backups"))
        listed.insert(base.backup_id());
    for (const DiaryBase& base : model_.bases(place))
        kept.insert(base.id);
    require_same(listed, kept, "\"" + place + "\"");
    const WallTime from =
        std::max(seen() - (place.empty() ? kHere : kThere).window, wal_.commits[2].at);
    for (int n = 0; n < 2; ++n) {
        const auto seconds =
            std::chrono::duration_cast<std::chrono::seconds>(seen() - from).count();
        check_second(
            *view, place,
            from + std::chrono::seconds(random_.below(static_cast<std::uint64_t>(seconds))));
    }
    // All WAL from the base before the window on: with it each second is.
    check_second(*view, place, from);
    if (const DiaryBase* anchor = anchor_of(place, from))
        must_hold(view->require_coverage(writer_->history().id, anchor->start, writer_->flushed),
                  "WAL of the window at \"" + place + "\"");
    if (place == kTier) check_holds(*view, place);
    const auto& bases = model_.bases(place);
    check_base(*view, bases[random_.below(bases.size())]);
}

const DiaryBase* Year::anchor_of(const std::string& place, WallTime at) const {
    const DiaryBase* anchor = nullptr;
    for (const DiaryBase& base : model_.bases(place))
        if (base.stopped_at <= at) anchor = &base;
    return anchor;
}

// The newest base before it, all WAL from there to the first transaction behind it, byte for byte.
void Year::check_second(RepositoryView& view, const std::string& place, WallTime at) {
    const std::string when = to_utc_text(at) + " at \"" + place + "\"";
    const auto behind = std::ranges::find_if(
        wal_.commits, [&](const MadeCommit& commit) { return commit.at > at; });
    const Id16 history = writer_->history().id;
    const auto found = must_hold(view.first_transaction_after(history, at), "resolve " + when);
    hold(found.has_value() == (behind != wal_.commits.end()) &&
             (!found || found->start_lsn == behind->start_lsn),
         when + " is resolved to another transaction");
    const DiaryBase* chosen = anchor_of(place, at);
    if (chosen == nullptr) return hold(hour_ <= 24 + 72, "no base is before " + when);
    check_base(view, *chosen);
    const Lsn to = found ? found->start_lsn : writer_->flushed;
    Lsn read = chosen->start;
    must_hold(view.require_coverage(history, chosen->start, to), "WAL for " + when);
    must_hold(
        view.read_wal(history, chosen->start, to,
                      [&](ByteSpan piece) -> Result<> {
                          if (std::memcmp(piece.data(), wal_.from(read).data(), piece.size()) != 0)
                              return fail(Errc::corrupt, "WAL is another");
                          read = read + piece.size();
                          return {};
                      }),
        "read WAL for " + when);
    hold(read == to, "WAL for " + when + " is shorter");
    ++counts_.restores;
}

void Year::check_base(RepositoryView& view, const DiaryBase& base) {
    must_hold(view.require_coverage(writer_->history().id, base.start, base.stop),
              "WAL of base " + base.id);
    std::size_t number = 0;
    auto on_file = [&](pb::ManifestFile& file) -> Result<> {
        for (std::size_t at = 0; at < file.content_ids().size(); at += 32, ++number) {
            ByteBuffer plain;
            WV_CHECK(view.read_chunk(id_from<32>(file.content_ids().substr(at, 32)), plain));
            if (number >= base.contents.size() || plain != bytes_of(base.contents[number]))
                return fail(Errc::corrupt, "another chunk");
        }
        return {};
    };
    must_hold(view.read_manifest(
                  infos_.at(base.id), [](const pb::ManifestHead&) { return Result<>{}; }, on_file),
              "read base " + base.id);
    hold(number == base.contents.size(), "base " + base.id + " is shorter than it was");
}

}  // namespace walvault::simulation
