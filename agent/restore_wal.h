// WAL of a plan as files in pg_wal: whole segments, and the history files of timelines.
#pragma once

#include <functional>

#include "agent/restore_plan.h"
#include "agent/restore_tree.h"

namespace walvault::agent {

// Writes every segment of the plan into pg_wal, zeros after its last byte, and the history files of
// all timelines the repository knows (so that a promotion takes a number nobody has used).
// `on_bytes` gets what was written since the last call. Errors: gap, corrupt, io, no_space.
Result<> write_wal(storage::RepositoryView& view, const RestorePlan& plan, const RestoreTree& tree,
                   const std::function<void(std::uint64_t)>& on_bytes);

}  // namespace walvault::agent
