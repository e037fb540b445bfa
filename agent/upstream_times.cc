#include "agent/upstream_times.h"

#include <algorithm>

namespace walvault::agent {
namespace {

constexpr std::size_t kMovesMax = 1024;

}  // namespace

void UpstreamTimes::note(Lsn lsn, SteadyTime at) {
    if (!moves_.empty() && lsn < moves_.back().end_lsn) moves_.clear();
    if (!moves_.empty() && lsn == moves_.back().end_lsn) return;
    moves_.push_back({lsn, at});
    if (moves_.size() <= kMovesMax) return;
    // The older half becomes half as fine; what happens now stays exact.
    std::deque<Move> thinned;
    for (std::size_t i = 0; i + 1 < kMovesMax / 2; i += 2)
        thinned.push_back({moves_[i + 1].end_lsn, moves_[i].at});
    thinned.insert(thinned.end(), moves_.begin() + kMovesMax / 2, moves_.end());
    moves_.swap(thinned);
}

SteadyTime::duration UpstreamTimes::behind(Lsn position, SteadyTime now) const {
    auto first = std::upper_bound(moves_.begin(), moves_.end(), position,
                                  [](Lsn lsn, const Move& move) { return lsn < move.end_lsn; });
    return first == moves_.end() ? SteadyTime::duration::zero() : now - first->at;
}

}  // namespace walvault::agent
