// OpenRepository: the repository for a verb that writes to it where no agent runs.
#pragma once

#include <memory>
#include <string>

#include "agent/config.h"
#include "storage/repository.h"

namespace walvault::agent {

// As its only writer; `host` says in the ledger's claim who that is. Packs are read from the tiers
// too. Errors: busy (an agent holds it), wrong_key; others as as_repository_error() makes them.
Result<std::unique_ptr<storage::Repository>> open_repository(const Config& config,
                                                             const std::string& host);

}  // namespace walvault::agent
