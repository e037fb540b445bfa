// A batch of the row journal as columns, which is what packs hold: what is alike stands together,
// and so a pack has two thirds of the bytes. docs/journal.md has the format.
//
// Pure, and the same bytes come back: whoever reads a pack sees batches.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "proto/journal_format.h"

namespace walvault {

struct ColumnBatch {
    ByteBuffer plain;
    // Places in `plain` at which the kind of bytes changes, rising: what compresses it may well
    // begin a block there.
    std::vector<std::size_t> cuts;
};

// Nothing where it would have more bytes than `batch`, or would not give it back. Errors: corrupt
// for what is no batch.
Result<std::optional<ColumnBatch>> to_columns(ByteSpan batch);

bool is_columns(ByteSpan plain);
// The batch, byte for byte; `out` is resized, to at most kFramePlainBytesMax. Errors: corrupt.
Result<> from_columns(ByteSpan plain, ByteBuffer& out);

}  // namespace walvault
