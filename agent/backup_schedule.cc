#include "agent/backup_schedule.h"

#include <algorithm>

namespace walvault::agent {

bool BackupSchedule::due(SteadyTime steady, WallTime now, std::optional<WallTime> last_started,
                         std::chrono::seconds every) const {
    if (steady < not_before_) return false;
    if (!last_started) return true;
    return every.count() != 0 && now - *last_started >= every;
}

void BackupSchedule::note_failed(SteadyTime steady) {
    not_before_ = steady + retry_;
    retry_ = std::min(retry_ * 2, kRetryMost);
}

}  // namespace walvault::agent
