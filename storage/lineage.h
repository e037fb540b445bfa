// Lineage: the stretches of WAL that make up a history, back through its ancestors.
//
// A history never copies what its ancestors hold: before its own start, the bytes are its parent's.
#pragma once

#include <functional>
#include <vector>

#include "storage/index.h"

namespace walvault::storage {

// What `history` is made of: without holes between stretches, oldest first, itself last. An
// ancestor that gave nothing (a history left before its second segment) is not among them. Errors:
// corrupt for a history that is not known, or for a chain of parents that does not end.
Result<std::vector<Stretch>> lineage_of(Index& index, const Id16& history);

// The same over any set of records.
Result<std::vector<Stretch>> lineage_from(
    const Id16& history,
    const std::function<Result<std::optional<pb::HistoryOpened>>(const Id16&)>& find);

// Complete bases of the history and its ancestors that are consistent before their path is left, by
// where they are consistent. A history stores the whole segment that it begins in: up to the fork
// those bytes are its parent's, and so is a base in them.
std::vector<pb::BackupInfo> bases_on_path(const HistoryRecord& history,
                                          const std::vector<HistoryRecord>& histories,
                                          const std::vector<pb::BackupInfo>& backups);

// The history file of `timeline` as stored for `history` or the nearest ancestor that has one.
Result<std::optional<std::string>> stored_timeline_history(Index& index, const Id16& history,
                                                           TimelineId timeline);

}  // namespace walvault::storage
