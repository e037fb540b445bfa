// The walsender's texts as values; shared by the sources of this room and its tests.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "wal/walsender.h"

namespace walvault::wal {

// "16MB", "8192", "1GB". Errors: corrupt.
Result<std::uint64_t> parse_size_bytes(std::string_view text);
// "1min", "500ms", "0"; a bare number is milliseconds. Errors: corrupt.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
// The row that ends a timeline among the results after a copy; nothing if there is none.
Result<std::optional<TimelineEnd>> timeline_end_of(const std::vector<QueryResult>& results);

}  // namespace walvault::wal
