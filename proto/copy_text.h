// Rows of COPY … TO STDOUT in text format (PostgreSQL manual, COPY, Text Format).
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "proto/pgoutput.h"

namespace walvault {

// One row after another; memory is bounded by the largest one.
class CopyTextReader {
public:
    // `line` is one row with the newline that ends it. Values are null or text, views into `line`
    // or into memory of this object: good until the next read(), and while the bytes of `line`
    // live. Errors: corrupt unless it has exactly `columns` values.
    Result<pgoutput::Tuple> read(ByteSpan line, std::size_t columns);

private:
    std::vector<pgoutput::Value> values_;
    std::string unescaped_;
};

}  // namespace walvault
