// GatherInterval: for how long messages of the server gather in the socket before they are read.
#pragma once

#include <algorithm>
#include <chrono>

namespace walvault::wal {

// The server sends each change by itself, and to wake for each costs more than to take it; on two
// cores with a busy server it cost that server a tenth of its transactions. But a socket holds some
// 250 small messages, and a server that waits for room decodes nothing. So where many come they
// gather for the shortest time, and for twice as long as before while few do.
class GatherInterval {
public:
    static constexpr std::chrono::microseconds kShortest{100};
    static constexpr std::chrono::microseconds kLongest{5000};
    static constexpr unsigned kFew = 60;
    static constexpr unsigned kMany = 120;

    // The next one, when `taken` messages were read since the last.
    std::chrono::microseconds next(unsigned taken) {
        if (taken > kMany)
            last_ = kShortest;
        else if (taken < kFew)
            last_ = std::min(2 * last_, kLongest);
        return last_;
    }

private:
    std::chrono::microseconds last_ = kShortest;
};

}  // namespace walvault::wal
