// Year: a database that changes, with a base each hour and WAL, in a repository and on a tier, both
// with rules of their own, on a clock that is set by hand. Each day both places are held against
// RulesModel and against what the database was.
//
// Holds are placed and released at random. Not in it: crashes and interleavings (keeping.h has
// those).
#pragma once

#include <memory>
#include <optional>

#include "tests/simulation/keeping.h"
#include "tests/simulation/rules_model.h"

namespace walvault::simulation {

class Year {
public:
    Year(std::uint64_t seed, unsigned hours);
    ~Year();
    // What broke, with its hour; empty: all held.
    std::string run();

    struct Counts {
        std::uint64_t bases = 0, surveys = 0, rewritten = 0, deleted = 0, restores = 0;
        std::uint64_t holds = 0, held_restores = 0;     // the latter of what only a hold kept
        std::uint64_t here_bytes = 0, there_bytes = 0;  // at the end
        double off_most = 0;  // how far the bytes of a place were from what the rules imply
    };
    const Counts& counts() const { return counts_; }

private:
    void set_up();
    void live_an_hour();
    void live_a_day();
    void take_base();
    void close_tail();
    void offload();
    void place_or_release();
    void place_hold();
    std::vector<DiaryHold> diary_of_holds() const;
    void pass(const std::string& place);
    void rewrite(const std::string& place, const storage::RetentionSurvey& survey);
    void let_go(const std::string& place);
    void check(const std::string& place);
    void check_second(storage::RepositoryView& view, const std::string& place, WallTime at);
    void check_base(storage::RepositoryView& view, const DiaryBase& base);
    void check_holds(storage::RepositoryView& view, const std::string& place);
    const DiaryBase* anchor_of(const std::string& place, WallTime at) const;
    const storage::MadeCommit* first_behind(WallTime at) const;
    void check_files(const std::string& place);
    WallTime seen() const;
    storage::RetentionRules rules_of(const std::string& place) const;
    std::unique_ptr<storage::ObjectStore> layered_store();
    std::unique_ptr<storage::RepositoryView> open_view(storage::ObjectStore& store,
                                                       const std::string& place);
    DiaryPack diary_of(const pb::PackInfo& info, const pb::PackFooter& footer);

    unsigned hours_;
    unsigned hour_ = 0;
    Random random_;
    SeededSecrets secrets_;
    HandClock clock_;
    SimulatedFiles files_;
    SimulatedFiles tier_files_;
    SimulatedIndexes indexes_;
    std::optional<storage::MasterKey> master_;
    std::unique_ptr<storage::ObjectStore> here_;
    std::unique_ptr<storage::ObjectStore> there_;
    std::unique_ptr<storage::Repository> repository_;
    std::unique_ptr<storage::Offloader> offloader_;
    std::uint64_t tier_sequence_ = 0;  // of the ledger there
    storage::MadeWal wal_;
    std::unique_ptr<storage::HistoryWriter> writer_;
    Lsn tail_start_;
    std::set<std::string> wal_paths_;
    std::vector<unsigned> blocks_;  // what the database holds, as numbers of contents
    unsigned next_content_ = 0;
    std::map<Id32, unsigned> contents_;  // by the names of their chunks
    std::map<unsigned, Id32> names_;
    std::map<std::string, DiaryBase> bases_;
    std::map<std::string, pb::BackupInfo> infos_;
    std::vector<pb::HoldPlaced> holds_;
    RulesModel model_{WalBuilder::kSegmentBytes};
    Counts counts_;
};

}  // namespace walvault::simulation
