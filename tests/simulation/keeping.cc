#include "tests/simulation/keeping.h"

#include <algorithm>

#include "base/log.h"
#include "storage/layered_store.h"
#include "storage/tier_store.h"

namespace walvault::simulation {

using namespace storage;

namespace {

const std::string kRoot = "/srv/repository";
// Older ones draw what they drew when they found something.
constexpr std::uint64_t kFirstSeedWithHolds = 2'026'112'800'000;

std::uint64_t hash_of(std::uint64_t hash, const std::string& text) {
    for (char c : text)
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return hash;
}

}  // namespace

std::string content_of(unsigned number) {
    std::string text;
    while (text.size() < 40 + number * 37 % 400)
        text += "chunk " + std::to_string(number) + " ";
    return text;
}

const std::vector<Keeping::Action>& Keeping::actions() {
    static const std::vector<Action> all{
        {"pass time", 10, &Keeping::pass_time},
        {"write WAL", 8, &Keeping::write_wal},
        {"close the tail", 5, &Keeping::close_tail},
        {"begin a backup", 12, &Keeping::begin_backup},
        {"store chunks", 10, &Keeping::store_chunks},
        {"complete a backup", 14, &Keeping::complete_backup},
        {"fail a backup", 2, &Keeping::fail_backup},
        {"take a backup", 14, &Keeping::take_backup},
        {"survey", 6, &Keeping::survey},
        {"condemn", 6, &Keeping::condemn},
        {"survey and condemn", 16, &Keeping::survey_and_condemn},
        {"place a hold", 6, &Keeping::place_hold, true},
        {"release a hold", 2, &Keeping::release_hold, true},
        {"copy live chunks", 10, &Keeping::copy_live_chunks},
        {"enter a copy", 10, &Keeping::enter_copy},
        {"let go", 16, &Keeping::let_go},
        {"offload", 14, &Keeping::offload},
        {"a tier goes away or comes back", 6, &Keeping::tier_goes_or_comes},
        {"add a tier", 4, &Keeping::add_tier},
        {"remove a tier", 1, &Keeping::remove_tier},
        {"begin a restore", 7, &Keeping::begin_restore},
        {"begin a restore from a tier", 7, &Keeping::begin_restore_from_tier},
        {"end a restore", 4, &Keeping::end_restore},
        {"look", 5, &Keeping::look},
        {"kill", 4, &Keeping::kill},
    };
    return all;
}

unsigned Keeping::weight_of(const Action& action) const {
    return action.is_of_holds && seed_ < kFirstSeedWithHolds ? 0 : action.weight;
}

Keeping::Keeping(std::uint64_t seed, bool keeps_log)
    : seed_(seed), keeps_log_(keeps_log), random_(seed), secrets_(seed) {
    log::take_lines([this](const std::string& line) { note("    " + line); });
}

Keeping::~Keeping() {
    restores_.clear();
    close_repository();
    log::take_lines({});
}

void Keeping::note(const std::string& what) {
    const std::string line = to_utc_text(clock_.at) + " " + what + "\n";
    outcome_.log_hash = hash_of(outcome_.log_hash, line);
    if (keeps_log_) outcome_.log += line;
}

KeepingOutcome Keeping::run() {
    try {
        set_up();
        const std::uint64_t steps = random_.between(12, 28);
        for (std::uint64_t i = 0; i < steps; ++i)
            act();
        note("settle");
        settle();
    } catch (const Broken& broken) {
        note("BROKEN: " + broken.what);
        outcome_.broken = broken.what;
        files_.crash_in = 0;
        files_.is_frozen = false;
    }
    return outcome_;
}

void Keeping::set_up() {
    master_ = MasterKey::generate();
    must_hold(files_.make_directories("/srv", 0700), "make /srv");
    must_hold(files_.sync_directory("/"), "sync /");
    must_hold(Repository::create(files_, kRoot, *master_, clock_), "create");
    promises_[""].wal_from = wal_.builder.start();
    open_repository(false);
    write_wal();
    // Some past, so that there is something to let go of soon.
    if (random_.one_in(2)) add_tier();
    const std::uint64_t bases = random_.between(3, 6);
    for (std::uint64_t i = 0; i < bases; ++i) {
        pass_time();
        take_backup();
        if (random_.one_in(2)) close_tail();
    }
    for (const auto& each : tiers_)
        offload_to(*each, false);
}

void Keeping::act() {
    std::uint64_t sum = 0;
    for (const Action& action : actions())
        sum += weight_of(action);
    for (bool done = false; !done;) {
        std::uint64_t drawn = random_.below(sum);
        const Action* action = actions().data();
        for (; drawn >= weight_of(*action); ++action)
            drawn -= weight_of(*action);
        // A process ends anywhere.
        if (random_.one_in(16)) files_.crash_in = random_.between(1, 12);
        note(std::string(action->name) + (files_.crash_in > 0 ? ", and perhaps a crash" : ""));
        try {
            done = (this->*action->act)();
            files_.crash_in = 0;
        } catch (const Crash&) {
            done = true;
        } catch (const Broken&) {
            if (!files_.is_frozen) throw;
            done = true;
        }
        if (files_.is_frozen) end_by_crash();
        if (done) ++outcome_.counts[action->name];
    }
}

// --- the process
// --------------------------------------------------------------------------------------

void Keeping::open_repository(bool may_crash) {
    for (;;) {
        RepositoryOptions options;
        options.host = "simulated";
        options.version = "test";
        options.wal_level = 1;
        options.index_home = &indexes_;
        options.packs_store = layered_store();
        if (may_crash && random_.one_in(4)) files_.crash_in = random_.between(1, 20);
        try {
            repository_ = must_hold(Repository::open(files_, kRoot, *master_, clock_, options),
                                    "open the repository");
            writer_ = std::make_unique<HistoryWriter>(*repository_, wal_);
            must_hold(writer_->begin(), "go on with the history");
            files_.crash_in = 0;
            if (!files_.is_frozen) break;
        } catch (const Crash&) {
        } catch (const Broken&) {
            if (!files_.is_frozen) throw;
        }
        note("crashed while it was opened");
        close_repository();
        files_.crash_in = 0;
        files_.is_frozen = false;
    }
    learn_of_backup();
    const auto known = must_hold(repository_->tiers(), "tiers");
    for (const auto& each : tiers_)
        each->is_removed = std::ranges::find(known, each->name) == known.end();
}

void Keeping::close_repository() {
    for (const auto& each : tiers_) {
        each->offloader.reset();
        each->ledger_sequence = 0;
    }
    surveys_.clear();
    copy_.reset();
    writer_.reset();
    repository_.reset();
}

void Keeping::end_by_crash() {
    ++outcome_.counts["crashes"];
    close_repository();
    files_.crash_in = 0;
    files_.is_frozen = false;
    if (random_.one_in(3)) {
        note("the power is cut");
        restores_.clear();
        files_.cut_power(random_);
        indexes_.cut_power(random_);
    } else if (random_.one_in(3)) {
        note("the index is lost");
        indexes_.lose_all();
    }
    open_repository(true);
}

// The process may have ended after it said that the backup is complete.
void Keeping::learn_of_backup() {
    if (!backup_) return;
    if (backup_->is_entered)
        for (const pb::BackupInfo& each : must_hold(repository_->backups("main"), "backups"))
            if (each.backup_id() == backup_->base.info.backup_id())
                bases_[each.backup_id()] = backup_->base;
    backup_.reset();
}

Keeping::Tier& Keeping::tier(const std::string& name) {
    for (const auto& each : tiers_)
        if (each->name == name) return *each;
    throw Broken{"no tier " + name};
}

Keeping::Tier* Keeping::some_tier() {
    std::vector<Tier*> all;
    for (const auto& each : tiers_)
        if (!each->is_removed) all.push_back(each.get());
    return all.empty() ? nullptr : all[random_.below(all.size())];
}

std::string Keeping::some_place() {
    Tier* at = random_.one_in(2) ? nullptr : some_tier();
    return at == nullptr ? "" : at->name;
}

std::unique_ptr<ObjectStore> Keeping::directory_store() {
    return make_directory_store(files_, kRoot);
}

std::unique_ptr<ObjectStore> Keeping::layered_store() {
    std::vector<std::unique_ptr<ObjectStore>> further;
    for (const auto& each : tiers_)
        if (!each->is_removed)
            further.push_back(make_tier_store(make_directory_store(each->files, "/tier")));
    return make_layered_store(directory_store(), std::move(further));
}

std::unique_ptr<RepositoryView> Keeping::open_view(ObjectStore& store,
                                                   std::optional<std::string> place,
                                                   bool with_index) {
    RepositoryView::Options options;
    options.index_directory = with_index ? kRoot + "/index" : "";
    options.scratch_directory = "/scratch";
    options.is_tier = place && !place->empty() && !with_index;
    options.index_home = &indexes_;
    options.place = std::move(place);
    return must_hold(RepositoryView::open(store, *master_, options), "open a view");
}

// --- the end
// --------------------------------------------------------------------------------------

// Everything that was begun is ended; then all must be as the rules say.
void Keeping::settle() {
    while (!restores_.empty())
        end_restore();
    if (backup_) fail_backup();
    enter_copy();
    if (random_.one_in(4)) {
        kill();
        end_by_crash();
    }
    close_tail();
    for (const auto& each : tiers_)
        if (!each->is_removed) offload_to(*each, false);
    for (const std::string& place : must_hold(repository_->tiers(), "tiers"))
        delete_at(place, std::chrono::seconds(0), 1000);
    for (const auto& each : tiers_)
        if (!each->is_removed) offload_to(*each, false);
    const Deletions here = delete_at("", std::chrono::seconds(0), 1000);
    hold(here.condemned_count == 0, "what is condemned stays for " + here.waits_for);
    for (const auto& each : tiers_)
        if (!each->is_removed) offload_to(*each, false);
    check_place("", true);
    for (const auto& each : tiers_)
        if (!each->is_removed) check_place(each->name, true);
    for (const auto& each : tiers_)
        if (!each->is_removed) check_tier_reader(*each, true);
    check_objects();
    check_totals();
}

}  // namespace walvault::simulation
