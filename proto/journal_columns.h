// A batch of the row journal as columns, which is what packs hold: what is alike stands together
// and is compressed together. docs/journal.md has the format.
//
// Pure, and the same bytes come back: whoever reads a pack sees batches.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "proto/journal_format.h"
#include "proto/value_columns.h"

namespace walvault {

struct ColumnBatch {
    ByteBuffer plain;
    // Places in `plain` at which the kind of bytes changes, rising: what compresses it may well
    // begin a block there.
    std::vector<std::size_t> cuts;
};

// Nothing where it would have no fewer bytes than `batch`, or would not give it back. Errors:
// corrupt for what is no batch.
Result<std::optional<ColumnBatch>> to_columns(ByteSpan batch);

// Changes of one row: of its table, and with this text in the first column of its key, now or
// before.
struct RowSought {
    std::uint32_t table_oid = 0;
    SoughtValue first;
};

bool is_columns(ByteSpan plain);
// The batch, byte for byte; `out` is resized, to at most kFramePlainBytesMax. Where a row is
// sought, a batch that has of all changes and rows only those that may be of it, and of the
// transactions that begin and end here only those with a change left, a message or an origin.
// Memory: some 100 bytes for each byte of `plain` at most. Errors: corrupt.
Result<> from_columns(ByteSpan plain, ByteBuffer& out, const RowSought* sought = nullptr);

}  // namespace walvault
