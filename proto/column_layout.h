// How a batch lies in columns: what writes and what reads them share. docs/journal.md has the
// format.
#pragma once

#include "proto/journal_format.h"

namespace walvault::columns {

// No batch has so many relation versions.
inline constexpr std::uint32_t kMark = 0xFFFFFFFF;

// Which records there are; one byte for each, as in the batch, but an update and a delete say in it
// what they have of the old row.
inline constexpr char kUpdateWithKey = 'k', kUpdateWithOld = 'o', kDeleteWithOld = 'd';

// How a value stands in its column; besides, as in a tuple.
inline constexpr char kSameAsOld = '=';

// Streams that are not of a column, in this order.
enum Stream : std::size_t {
    kKinds,
    kRelations,   // of each change its relation version
    kBeginLsns,   // differences, from transaction to transaction
    kBeginTimes,  // likewise
    kXids,        // likewise
    kBeginFlags,
    kCommitLsns,   // differences to the transaction's B
    kEndLsns,      // differences to the LSN of its commit record
    kCommitTimes,  // differences to the transaction's B
    kOtherLengths,
    kOthers,  // bodies of other records
    kStreamCount,
};

struct Transaction {
    std::uint64_t lsn = 0;
    std::uint64_t at = 0;
    std::uint32_t xid = 0;
};

}  // namespace walvault::columns
