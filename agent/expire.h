// Expire: one pass of retention over the repository: looked at, condemned, deleted; and how it is
// told.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "agent/open_view.h"
#include "storage/lease.h"
#include "storage/repository.h"

namespace walvault::agent {

struct ExpireReport {
    std::string place;  // a tier; empty: the repository's directory
    WallTime at;
    std::optional<WallTime> window_from;
    std::optional<WallTime> restorable_from;
    std::uint64_t condemned_bases = 0;  // by this pass
    std::uint64_t condemned_packs = 0;
    std::uint64_t condemned_bytes = 0;
    // Mostly dead, and copied into new ones; and the bytes of what was dead in them.
    std::uint64_t rewritten_packs = 0;
    std::uint64_t rewritten_dead_bytes = 0;
    std::uint64_t deleted_packs = 0;
    std::uint64_t freed_bytes = 0;
    std::uint64_t waiting_packs = 0;  // condemned, and not deleted yet
    std::uint64_t waiting_bytes = 0;
    std::string waits_for;       // who holds a lease; empty: nobody
    std::string bases_unjudged;  // why packs of base backups all stay for now; empty: they do not
};

// How many packs are deleted in one call, between which others have their turn.
inline constexpr std::size_t kDeletedAtOnce = 32;

// A place where retention is at work: the repository's directory, with an empty name, or a tier.
struct ExpirePlace {
    std::string name;
    storage::RetentionRules rules;
    std::chrono::seconds grace{0};
    bool is_bucket = false;
    bool rewrites = true;  // packs that are mostly dead
};
// Those with a window, the directory first.
std::vector<ExpirePlace> expire_places(const Config& config);

// Looks at the repository through a view of its own, beside its writer, as one sees it at `place`.
Result<storage::RetentionSurvey> survey_repository(const Config& config, const std::string& cluster,
                                                   const ExpirePlace& place,
                                                   const std::string& judged_before = {});
// What the survey condemns and rewrites, before it is done.
ExpireReport report_of(const storage::RetentionSurvey& survey, WallTime at);
// Copies what lives of packs that are mostly dead, for who has the repository alone: blocking. What
// cannot be read stays as it is, after a warning in the log.
void rewrite_packs_alone(storage::Repository& repository, const storage::RetentionSurvey& survey,
                         ExpireReport& report);
void add_condemned(ExpireReport& report, const storage::RetentionSurvey& survey);
void add_rewritten(ExpireReport& report, const std::vector<storage::RewriteCandidate>& sources);
void warn_not_rewritten(const std::vector<storage::RewriteCandidate>& sources, const Error& error);
void add_deletions(ExpireReport& report, const storage::Deletions& done);
nlohmann::ordered_json json_of(const ExpireReport& report);
Result<ExpireReport> expire_report_of(const nlohmann::json& body);

// Errors: refused where no window is set at any place.
Result<> require_window(const Config& config);

// For a verb that reads for a while: held until it is destroyed; the view's store outlives it.
// Nothing where nothing expires, or, after a warning on stderr, where the repository cannot be
// written to.
std::unique_ptr<storage::HeldLease> hold_lease(const OpenedView& opened, const std::string& verb);

}  // namespace walvault::agent
