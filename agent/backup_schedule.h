// BackupSchedule: when the next base backup begins, as a function of times; it knows no clock.
#pragma once

#include <chrono>
#include <optional>

#include "base/clock.h"

namespace walvault::agent {

class BackupSchedule {
public:
    static constexpr std::chrono::seconds kRetryFirst{30};
    static constexpr std::chrono::seconds kRetryMost{900};

    // `last_started`: of the last complete one in the history that is followed. Without one nothing
    // is restorable, so it is due whatever `every` says; then each `every` from the start of the
    // last; with zero never. After a failure not before its retry.
    bool due(SteadyTime steady, WallTime now, std::optional<WallTime> last_started,
             std::chrono::seconds every) const;

    void note_complete() { retry_ = kRetryFirst; }
    // The next one waits, each time twice as long.
    void note_failed(SteadyTime steady);

private:
    std::chrono::seconds retry_ = kRetryFirst;
    SteadyTime not_before_{};
};

}  // namespace walvault::agent
