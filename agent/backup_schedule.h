// BackupSchedule: when the next base backup begins, as a function of times; it knows no clock.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "storage/repository_view.h"

namespace walvault::agent {

// When the newest complete base began that a restore of `current` can start from, if there is one.
// A promotion goes on with the bases of its parent. Behind a fork, a gap, or WAL that cannot be
// replayed across, a new one is wanted: the old ones reach the other side only by proof, or not.
std::optional<WallTime> newest_base_started(const storage::HistoryRecord& current,
                                            const std::vector<storage::HistoryRecord>& known,
                                            const std::vector<pb::BackupInfo>& backups,
                                            const std::vector<pb::GapFound>& gaps);

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
