// Target: what a person names to go back to: the grammar of --to and --before (docs/targets.md).
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "proto/lsn.h"

namespace walvault::agent {

struct Target {
    enum class Kind {
        latest,     // everything flushed when the repository was opened
        earliest,   // the consistency point of the oldest base
        immediate,  // the consistency point of the newest base
        time,
        lsn,
        xid,
        name,
        backup,
    };
    Kind kind = Kind::latest;
    bool before = false;  // --before: without what is named
    WallTime at{};        // time
    Lsn lsn;              // lsn
    Xid xid = 0;          // xid
    std::string name;     // name: a restore point; backup: a backup id
    std::string text;     // as it was given, for messages and the ledger
};

// What a time without a date or a zone is read against.
struct TimeContext {
    WallTime now{};
    std::string zone = "UTC";  // a name of the zone database, as display_zone() gives it
};

// Errors: invalid_argument for anything outside the grammar (exit 2); ambiguous for a local time
// that happened twice and outside_window for one that never did (exit 3), with the instants around
// it.
Result<Target> parse_target(std::string_view text, bool before, const TimeContext& context);

// The TIME and RELATIVE forms alone, as --since and --until take them. Errors: as parse_target.
Result<WallTime> parse_time(std::string_view text, const TimeContext& context);

}  // namespace walvault::agent
