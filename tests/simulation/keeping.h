// Keeping: one seed: a repository and its tiers, and what writes, lets go, copies and reads them in
// an order that the seed draws. No chunk that somebody counts on may be missing.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "storage/offloader.h"
#include "storage/repository.h"
#include "storage/repository_view.h"
#include "tests/simulation/files.h"
#include "tests/simulation/index_home.h"
#include "tests/simulation/secrets.h"
#include "tests/support/cut_store.h"
#include "tests/support/stored_history.h"

namespace walvault::simulation {

struct KeepingOutcome {
    std::string broken;  // empty: all held
    std::string log;     // what happened; only where it was asked for
    std::uint64_t log_hash = 0;
    std::map<std::string, std::uint64_t> counts;  // what was done, by name
};

// What is wrong, as words.
struct Broken {
    std::string what;
};
template <class T>
T must_hold(Result<T> result, const std::string& doing) {
    if (!result) throw Broken{doing + ": " + result.error().message};
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}
inline void hold(bool holds, const std::string& what) {
    if (!holds) throw Broken{what};
}

class HandClock final : public Clock {
public:
    WallTime now() const override { return at; }
    SteadyTime steady_now() const override { return SteadyTime(at.time_since_epoch()); }
    WallTime at{std::chrono::hours(24 * 365 * 56)};
};

class Keeping {
public:
    Keeping(std::uint64_t seed, bool keeps_log);
    ~Keeping();
    KeepingOutcome run();

private:
    // What a place must still have: the directory's, or a tier's.
    struct Promise {
        WallTime window_from{};             // of all surveys that were condemned by, the latest
        std::set<std::string> never_there;  // bases that had expired before a tier was added
        Lsn wal_from;                       // before that, no WAL was there from the beginning
        std::string judged;
    };
    struct Tier {
        std::string name;
        SimulatedFiles files;
        std::unique_ptr<storage::ObjectStore> repository;  // that its offloader reads
        std::unique_ptr<storage::ObjectStore> objects;
        std::unique_ptr<storage::CutStore> cut;
        std::unique_ptr<storage::Offloader> offloader;
        std::uint64_t ledger_sequence = 0;  // that the agent knows of
        bool is_readable = false;           // has had a ledger
        bool is_removed = false;
        bool is_away = false;  // to its offloader, for a while
    };
    struct Base {
        pb::BackupInfo info;
        std::vector<unsigned> contents;
    };
    struct Backup {
        Base base;
        unsigned packs = 0;
        bool is_entered = false;  // that it is complete may be in the ledger
    };
    // That was placed for sure, of what lay at a place.
    struct Hold {
        std::string place;
        std::string base_id;  // that is held, or that the moments begin with
        std::optional<WallTime> from, to;
    };
    struct Restore {
        std::string name;
        std::unique_ptr<storage::ObjectStore> lease_store;
        std::unique_ptr<storage::HeldLease> lease;
        std::unique_ptr<storage::ObjectStore> store;
        std::unique_ptr<storage::RepositoryView> view;
        Base base;
        Id16 history{};
        Lsn from;
        Lsn to;
    };
    struct Action {
        const char* name;
        unsigned weight;
        bool (Keeping::*act)();  // false: there was nothing to do it to
        bool is_of_holds = false;
    };
    static const std::vector<Action>& actions();
    unsigned weight_of(const Action& action) const;

    // keeping.cc
    void note(const std::string& what);
    void set_up();
    void act();
    void settle();
    void open_repository(bool may_crash);
    void close_repository();
    void end_by_crash();
    void learn_of_backup();
    Tier* some_tier();
    std::string some_place();
    Tier& tier(const std::string& name);
    std::unique_ptr<storage::ObjectStore> directory_store();
    std::unique_ptr<storage::ObjectStore> layered_store();
    std::unique_ptr<storage::RepositoryView> open_view(storage::ObjectStore& store,
                                                       std::optional<std::string> place,
                                                       bool with_index);

    // keeping_steps.cc
    bool pass_time();
    bool write_wal();
    bool close_tail();
    bool begin_backup();
    bool store_chunks();
    bool complete_backup();
    bool fail_backup();
    bool take_backup();
    bool survey();
    bool survey_place(const std::string& place, const storage::RewriteRules& rewriting);
    bool condemn();
    bool survey_and_condemn();
    bool place_hold();
    bool release_hold();
    bool condemn_by(std::size_t number);
    bool copy_live_chunks();
    bool enter_copy();
    bool let_go();
    bool offload();
    bool tier_goes_or_comes();
    bool add_tier();
    bool remove_tier();
    bool begin_restore();
    bool begin_restore_from_tier();
    bool end_restore();
    bool look();
    bool kill();
    void grow();
    void add_content(unsigned number, storage::PackWriter& pack);
    void offload_to(Tier& to, bool may_be_cut);
    void plan_restore(std::unique_ptr<Restore> restore);
    storage::Deletions delete_at(const std::string& place, std::chrono::seconds grace,
                                 std::size_t most);
    std::vector<storage::Lease> leases_at(const std::string& place);
    std::map<std::string, std::vector<std::string>> proved();

    // keeping_checks.cc
    void check_base(storage::RepositoryView& view, const Base& base, bool reads);
    static bool has_its_wal(storage::RepositoryView& view, const Base& base);
    void check_place(const std::string& place, bool reads);
    void check_tier_reader(const Tier& tier, bool is_settled);
    void check_promise(storage::RepositoryView& view, const std::string& place);
    void check_holds(storage::RepositoryView& view, const std::string& place, bool reads);
    void check_objects();
    void check_totals();
    void check_wal(storage::RepositoryView& view, const Id16& history, Lsn from, Lsn to);
    void finish(const Restore& restore);

    std::uint64_t seed_;
    bool keeps_log_;
    Random random_;
    SeededSecrets secrets_;
    HandClock clock_;
    SimulatedFiles files_;
    SimulatedIndexes indexes_;
    std::optional<storage::MasterKey> master_;
    std::vector<std::unique_ptr<Tier>> tiers_;
    std::unique_ptr<storage::Repository> repository_;
    storage::MadeWal wal_;
    std::unique_ptr<storage::HistoryWriter> writer_;
    std::optional<Backup> backup_;
    std::vector<storage::RetentionSurvey> surveys_;
    std::unique_ptr<storage::PackRewrite> copy_;  // made, and not entered yet
    std::vector<std::unique_ptr<Restore>> restores_;
    std::map<std::string, Base> bases_;  // that were complete
    std::map<std::string, Promise> promises_;
    std::map<std::string, Hold> holds_;  // by id
    unsigned next_content_ = 0;
    KeepingOutcome outcome_;
};

// What a chunk consists of, and the number of which it was made.
std::string content_of(unsigned number);

}  // namespace walvault::simulation
