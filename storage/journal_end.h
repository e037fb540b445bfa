// Where frames of a journal end, which only their content tells.
#pragma once

#include "base/bytes.h"
#include "proto/frame_format.h"

namespace walvault::storage {

// Where a journal that ended at `start_lsn` ends with a frame of these plain bytes. Errors:
// corrupt.
Result<Lsn> journal_end_behind(FrameKind kind, ByteSpan plain, Lsn start_lsn);

}  // namespace walvault::storage
