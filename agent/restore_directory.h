// The directories a restore writes to: how they are found, claimed, and cleared after an
// interruption.
#pragma once

#include <memory>

#include "agent/restore_plan.h"
#include "agent/restore_tree.h"
#include "base/file_system.h"

namespace walvault::agent {

// Looks, changes nothing. Errors: io, invalid_argument for a path that is no directory's.
Result<DirectoryFacts> inspect_directory(const std::string& path);

// Makes the directory if it is absent (parents readable by all, itself 0700), gives it to `owner`,
// takes the marker as a lock, and, if the marker was there before, removes everything else in it.
// Errors: busy if another restore holds it; refused if it is no longer as `facts` say.
Result<std::unique_ptr<FileLock>> claim_directory(const DirectoryFacts& facts,
                                                  const std::optional<FileOwner>& owner);

}  // namespace walvault::agent
