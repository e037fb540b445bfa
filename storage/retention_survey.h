// RetentionSurvey: what retention would do with a cluster as a repository shows it: the facts for
// plan_retention(), and which packs of base backups hold nothing that is needed any more.
#pragma once

#include <string>
#include <vector>

#include "storage/retention.h"
#include "storage/rewrite_plan.h"

namespace walvault::storage {

struct RetentionSurvey {
    std::string cluster;
    std::string place;  // a tier; empty: the repository's directory
    RetentionPlan plan;
    std::vector<pb::BackupInfo> backups;   // as plan.backups
    std::vector<pb::PackInfo> wal_packs;   // as plan.wal_packs
    std::vector<pb::PackInfo> base_packs;  // chunks and manifests
    std::vector<RetentionVerdict> base_verdicts;
    // Why all packs of base backups stay for now; empty: they were judged.
    std::string bases_unjudged;
    // Packs that stay and are mostly dead: what lives of them is to be copied.
    std::vector<RewriteCandidate> rewrites;
    std::uint64_t rewrites_win_bytes = 0;
    // Names the bases and packs that were judged: while it is the same, so is the answer. Empty
    // where something only waits to be rewritten.
    std::string judged;
    // So that what has changed since is noticed before anything is condemned.
    std::optional<Id16> current;
    std::size_t history_count = 0;
    std::vector<std::string> holds = {};  // ids of those there are

    // What expires, as ledger entries say it: first the bases, then packs, `packs_max` to each.
    std::vector<pb::Condemned> condemned(std::size_t packs_max = 1000) const;
};

// What `view` shows is judged: it is opened for `place` alone.
// Blocking; reads the manifests of the bases that stay, with one look into the index for each chunk
// they name (unless `judged_before` says that nothing has changed), and one frame of WAL for each
// history. Memory: the list of packs, about 500 bytes each, and one bit for each chunk.
// A pack is needed while it holds a chunk that a base which stays is made of; its other chunks stay
// with it, until it is rewritten. Packs of a backup that failed after the newest complete one stay
// for the next to share.
// Errors: as plan_retention(); as the view's.
Result<RetentionSurvey> survey_retention(RepositoryView& view, const std::string& cluster,
                                         const RetentionRules& rules, WallTime now,
                                         const std::string& judged_before = {},
                                         const std::string& place = {},
                                         const RewriteRules& rewriting = {});

}  // namespace walvault::storage
