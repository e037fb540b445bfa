// Attachment: which stored history a server continues, decided from what both sides say; pure.
//
// System identifier and timeline do not identify a history: a disk that was rolled back and two
// clones that were promoted share both. So what is followed is compared byte by byte, and what was
// found different is an input here.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "proto/timeline_history.h"
#include "storage/repository_view.h"

namespace walvault::agent {

struct ServerSide {
    TimelineId timeline = 0;
    Lsn flushed_lsn;
    bool in_recovery = false;               // a standby: it may lag
    std::vector<TimelineSwitch> ancestors;  // of its timeline, oldest first
    std::uint64_t segment_bytes = 0;
    Lsn reserved_lsn;                  // WAL from here on is kept for the slot
    bool keeps_older_segments = true;  // false: it was asked and had recycled them
};

// Where `timeline` ends on the server's path; kOpenEndLsn for the server's own; nothing if it is
// not on it.
std::optional<Lsn> end_on_path(const ServerSide& server, TimelineId timeline);
// The timeline that continues `timeline` on the server's path.
TimelineId successor_of(const ServerSide& server, TimelineId timeline);

// A stored history was compared with the server from `from_lsn` on, and `at_lsn` is the first byte
// that differs. The server may have had no WAL to compare with: then both are equal.
struct Difference {
    Id16 history{};
    Lsn from_lsn;
    Lsn at_lsn;
};

// Stream `timeline` from `from_lsn`, comparing up to where the history ends.
struct Follow {
    Id16 history{};
    TimelineId timeline = 0;
    Lsn from_lsn;
    // A primary that has flushed less than is stored was rolled back: once all it has is found
    // equal, its end is where it leaves the history.
    bool behind = false;
    bool resumed = false;  // not the one that was followed last
};
// A new history that continues `parent` up to `fork_lsn`.
struct Branch {
    Id16 parent{};
    TimelineId timeline = 0;
    Lsn start_lsn;
    Lsn fork_lsn;
    pb::HistoryOpened::Cause cause = pb::HistoryOpened::FORK;
    std::string reason;
};
// A new history with nothing before it.
struct Begin {
    TimelineId timeline = 0;
    Lsn start_lsn;
    pb::HistoryOpened::Cause cause = pb::HistoryOpened::FIRST;
    std::string reason;
};
// The server is a standby that does not have yet what is stored.
struct Wait {
    std::string reason;
};
using Attachment = std::variant<Follow, Branch, Begin, Wait>;

// Equal bytes that prove two histories to be one up to there: more than a page, which holds records
// with their CRC, their times and the positions of those before them.
inline constexpr std::uint64_t kProofBytes = 16 << 10;
// How many segments are looked back for an ancestor before a server's WAL counts as unrelated.
inline constexpr std::uint64_t kLookBackSegmentsMax = 16;

// Where a new history can begin: a server has files of its timeline only from the segment on in
// which that one began, whatever else it still keeps.
Lsn first_streamable(const ServerSide& server);

// `histories` in the order in which they were opened, all of one cluster. A timeline switch is
// followed from the nearest stored ancestor on; a difference opens a branch where it is proven that
// the bytes before it are the same, is looked into further back where it is not, and ends in Begin
// where nothing proves anything.
Attachment choose_attachment(const ServerSide& server,
                             const std::vector<storage::HistoryRecord>& histories,
                             const std::optional<Id16>& current,
                             const std::vector<Difference>& differences);

}  // namespace walvault::agent
