// RestoreThaw: what a restore does about archived objects between its plan and its copying.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "agent/open_view.h"
#include "agent/restore_plan.h"
#include "agent/thaw_job.h"

namespace walvault::agent {

class RestoreThaw {
public:
    RestoreThaw(const Globals& globals, const RestoreArguments& arguments, ProgressLine& progress)
        : globals_(globals), arguments_(arguments), progress_(progress) {}

    enum class Next {
        restore,  // all that it needs can be read
        thaw,     // carry_out(), then plan again
    };
    // With a plan, or with the error that kept it from being made; one that is not about an
    // archived object is returned. Errors: as the store's, refused, invalid_argument.
    Result<Next> next(OpenedView& opened, const RestorePlan* plan, const Error* error);
    // Asks whoever is there, unless it was agreed to before, and returns when all is thawed.
    // Errors: archived if nobody agrees; as ThawJob::thaw().
    Result<> carry_out(OpenedView& opened);
    // Keeps what is thawed while the result lives; this outlives it.
    Result<std::unique_ptr<ThawJob::Keeper>> keep();
    Result<> finish();

    bool has_plan() const { return plan_.has_value(); }
    std::string text() const;
    nlohmann::ordered_json json() const;

private:
    Result<ArchiveConfig> settings(const OpenedView& opened) const;
    Result<> open_job(OpenedView& opened, const std::string& pgdata);
    Result<ThawNeeds> needs(OpenedView& opened, const RestorePlan* plan) const;
    Result<> ask() const;

    const Globals& globals_;
    const RestoreArguments& arguments_;
    ProgressLine& progress_;
    unsigned round_ = 0;
    std::unique_ptr<ThawJob> job_;  // of the store that is open
    storage::ThawOptions options_;
    std::optional<storage::ThawPlan> plan_;
    bool target_is_known_ = true;
};

}  // namespace walvault::agent
