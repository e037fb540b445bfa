// Window: a stretch of time that can be restored.
#pragma once

#include <string>
#include <vector>

#include "storage/repository_view.h"

namespace walvault::agent {

// Times and places as the repository has them: microseconds since 1970, and LSNs.
inline WallTime time_of(std::int64_t micros) { return WallTime(Micros(micros)); }
inline Lsn stop_of(const pb::BackupInfo& base) { return Lsn{base.stop_lsn()}; }
inline Lsn start_of(const pb::BackupInfo& base) { return Lsn{base.start_lsn()}; }

// In one history, from its ancestors' bases on.
struct Window {
    storage::HistoryRecord history;
    std::vector<pb::BackupInfo> bases;  // complete ones of the lineage, oldest first; never empty
    // Older ones that retention kept alone: each can be restored as it is, and nothing behind it.
    std::vector<pb::BackupInfo> single_bases = {};
    WallTime from{};   // the state at the oldest base's consistency point
    WallTime until{};  // every commit at or before it is stored
    Lsn end_lsn = {};  // where its WAL ends
    // Of the hold that keeps it when the windows around it have moved on; empty: of none.
    std::string hold_id = {};
};

// In the order in which the histories were opened, but the one being followed last; what a hold
// keeps of a history comes before the rest of it. Histories without a complete base are left out,
// and so, unless asked for, are those with single ones only, whose `bases` are empty.
// Where only an archive has what would tell, a window begins where its base was begun, and one of a
// hold ends with the pack of the next transaction. Errors: as the view's.
Result<std::vector<Window>> restore_windows(storage::RepositoryView& view,
                                            const std::string& cluster,
                                            bool with_single_bases = false);

// The same for who asks for no times, each of which costs a look into WAL (as does the end of what
// a hold keeps by itself): those with bases, in that order.
struct LsnWindow {
    Lsn from;  // where the oldest base is consistent: nothing before it can be restored
    Lsn end;   // where its WAL ends
};
Result<std::vector<LsnWindow>> restore_lsn_windows(storage::RepositoryView& view,
                                                   const std::string& cluster);

}  // namespace walvault::agent
