// Timeline history files: which timeline ended where (PostgreSQL src/backend/access/transam/timeline.c).
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "proto/lsn.h"

namespace walvault {

struct TimelineSwitch {
    TimelineId timeline = 0;  // the one that ended
    Lsn end_lsn;              // first byte that belongs to its successor
};

// Oldest first. At most 64 KiB. Errors: corrupt for timelines that do not increase, positions that go
// back, or lines that are not PostgreSQL's.
Result<std::vector<TimelineSwitch>> parse_timeline_history(std::string_view text, TimelineId of);

}  // namespace walvault
