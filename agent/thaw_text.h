// How a thaw is told before it is agreed to, to people and to programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "storage/thaw_plan.h"

namespace walvault::agent {

// Lines in the form of the plan of a restore; empty where nothing is to be thawed.
std::string thaw_text(const storage::ThawPlan& plan, const storage::ThawOptions& options);
nlohmann::ordered_json thaw_json(const storage::ThawPlan& plan,
                                 const storage::ThawOptions& options);

}  // namespace walvault::agent
