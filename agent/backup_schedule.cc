#include "agent/backup_schedule.h"

#include <algorithm>

namespace walvault::agent {
namespace {

using storage::HistoryRecord;

// Where the last stretch of `history` ends that cannot be replayed across; 0/0: there is none.
Lsn last_barrier(const HistoryRecord& history, const std::vector<pb::GapFound>& gaps) {
    Lsn barrier;
    for (const pb::GapFound& gap : gaps)
        if (as_text(history.id) == gap.history_id() && gap.next_history_id().empty())
            barrier = std::max(barrier, Lsn{gap.to_lsn()});
    return barrier;
}

}  // namespace

std::optional<WallTime> newest_base_started(const HistoryRecord& current,
                                            const std::vector<HistoryRecord>& known,
                                            const std::vector<pb::BackupInfo>& backups,
                                            const std::vector<pb::GapFound>& gaps) {
    HistoryRecord history = current;
    Lsn end = storage::kOpenEndLsn;
    for (;;) {
        const Lsn barrier = last_barrier(history, gaps);
        const pb::BackupInfo* newest = nullptr;
        for (const pb::BackupInfo& backup : backups)
            if (as_text(history.id) == backup.history_id() && Lsn{backup.stop_lsn()} <= end &&
                Lsn{backup.start_lsn()} >= barrier &&
                (!newest || backup.started_at_us() > newest->started_at_us()))
                newest = &backup;
        if (newest) return WallTime(Micros(newest->started_at_us()));
        if (barrier != Lsn{} || history.cause != pb::HistoryOpened::PROMOTION || !history.parent)
            return std::nullopt;
        // The segment that a history begins in is stored again; up to the fork it is the parent's.
        end = std::min(end, history.fork_lsn);
        auto parent = std::find_if(known.begin(), known.end(), [&](const HistoryRecord& each) {
            return each.id == *history.parent;
        });
        if (parent == known.end()) return std::nullopt;
        history = *parent;
    }
}

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
