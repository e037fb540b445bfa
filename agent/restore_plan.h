// RestorePlan: everything a restore will do, decided before anything is written. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/stop_point.h"
#include "proto/timeline_history.h"

namespace walvault::agent {

// The file that says a restore was begun here and not ended; also the lock of the one that is
// running.
inline constexpr const char* kIncompleteMarker = "WALVAULT_RESTORE_INCOMPLETE";
// What was restored and from where; wal-get reads it in its working directory.
inline constexpr const char* kRestoreRecord = "walvault_restore.json";
inline constexpr std::uint64_t kRestoreRecordBytesMax = 64_KiB;

// A directory as it was found.
struct DirectoryFacts {
    enum class State {
        absent,
        empty,
        incomplete,  // holds our marker: an interrupted restore, may be cleared
        occupied,
        running,  // a live postmaster.pid
    };
    std::string path;  // absolute, symbolic links resolved as far as it exists
    State state = State::absent;
    std::string detail;            // "PG_VERSION 15", "pid 912"
    std::uint64_t free_bytes = 0;  // on the file system it is or would be on
    std::uint64_t device = 0;      // tells file systems apart
};

struct TablespacePlace {
    std::uint32_t oid = 0;
    std::string source;    // where it was
    std::string location;  // where it goes
};

struct WalSegmentPlan {
    std::string name;
    Lsn start_lsn;
    Lsn to_lsn;  // bytes from here to the end of the segment are zeros
};

struct RestorePlan {
    StopPoint stop;
    storage::ClusterRecord cluster;
    DirectoryFacts directory;
    std::vector<TablespacePlace> tablespaces;
    std::vector<DirectoryFacts> tablespace_facts;  // same order
    bool wal_in_place = true;              // whole segments into pg_wal; else wal-get fetches them
    std::vector<WalSegmentPlan> segments;  // what replay reads
    std::uint64_t base_bytes = 0;
    std::uint64_t wal_bytes = 0;     // of WAL read from the repository
    std::uint64_t needed_bytes = 0;  // on disk
    std::uint64_t free_bytes = 0;    // of all file systems written to
};

// Who brings the WAL: the restore, or wal-get while replay runs.
enum class WalPlace { automatic, copied, fetched };

struct RestoreInputs {
    StopPoint stop;
    storage::ClusterRecord cluster;
    DirectoryFacts directory;
    std::vector<TimelineSwitch> switches;  // of the stop point's timeline
    std::vector<TablespacePlace> tablespaces;
    std::vector<DirectoryFacts> tablespace_facts;
    std::string repository_root;
    WalPlace wal_place = WalPlace::automatic;
};

// "--tablespace OLD=NEW" applied to the base's tablespaces. Errors: invalid_argument for a text
// without
// '=', a path that is not absolute, or an OLD that the base does not have.
Result<std::vector<TablespacePlace>> place_tablespaces(const pb::BackupInfo& base,
                                                       const std::vector<std::string>& mappings);

// Errors: refused (not empty, running, inside the repository, one tablespace inside another place),
// no_space with what is needed and what is there.
Result<RestorePlan> plan_restore(RestoreInputs inputs);

// The timeline whose file PostgreSQL asks for: the newest that has begun in or before that segment.
TimelineId timeline_of_segment(const std::vector<TimelineSwitch>& switches, TimelineId target,
                               std::uint64_t segment_number, std::uint64_t segment_bytes);

// PostgreSQL's tablespace_map: "OID LOCATION" lines, line ends and backslashes escaped.
std::string tablespace_map(const std::vector<TablespacePlace>& places);

}  // namespace walvault::agent
