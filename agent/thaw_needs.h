// ThawNeeds: which objects a restore will read, so that all that is archived can be asked for at
// once.
#pragma once

#include <string>
#include <vector>

#include "agent/stop_point.h"
#include "storage/thaw_plan.h"

namespace walvault::agent {

// Of items the names, kinds and sizes alone.
using ThawNeeds = std::vector<storage::ThawItem>;

// The end of the segment that ends at or behind `lsn`.
Lsn segment_end(Lsn lsn, std::uint64_t segment_bytes);

// What the copying and the replay of this stop point read, of WAL up to `wal_to`: wal-get reads the
// last segment whole. Where the manifest or the footers of
// packs of chunks are archived, it cannot be told which of those packs hold the base: then all that
// were written by the time the base ended are in it, and with `widest` all there are. Reads the
// manifest where it can. Errors: as the view's.
Result<ThawNeeds> needs_of_restore(storage::RepositoryView& view, const StopPoint& stop, Lsn wal_to,
                                   bool widest);

// When the stop point cannot be found because `refused`, an object, is archived: that object, and
// if it is WAL, what a restore to a moment in it reads, the last segment whole. The newest base
// before it is meant.
Result<ThawNeeds> needs_to_look(storage::RepositoryView& view, const std::string& cluster,
                                const std::string& refused, bool widest);

}  // namespace walvault::agent
