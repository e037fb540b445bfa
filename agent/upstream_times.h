// UpstreamTimes: since when the server's WAL is known to reach where, so that how far a position is
// behind can be told in seconds.
#pragma once

#include <deque>

#include "base/clock.h"
#include "proto/lsn.h"

namespace walvault::agent {

class UpstreamTimes {
public:
    // The server's WAL reaches to `lsn`, known at `at`. Where it went back, all before is
    // forgotten.
    void note(Lsn lsn, SteadyTime at);
    // How long the first byte from `position` on has been known of; zero where none is. Never too
    // little: of many moves long ago, neighbours count as one, with the older time.
    SteadyTime::duration behind(Lsn position, SteadyTime now) const;

private:
    struct Move {
        Lsn end_lsn;
        SteadyTime at;
    };
    std::deque<Move> moves_;  // both ascending
};

}  // namespace walvault::agent
