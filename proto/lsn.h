// Lsn: a byte position in WAL; segment arithmetic for any segment size.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace walvault {

// Printed as PostgreSQL does: "16/B374D848". Zero is PostgreSQL's "invalid" and means "none" here.
struct Lsn {
    std::uint64_t value = 0;

    auto operator<=>(const Lsn&) const = default;
    explicit operator bool() const { return value != 0; }
    Lsn operator+(std::uint64_t bytes) const { return Lsn{value + bytes}; }
    // Bytes from `other` to here; `other` is not ahead.
    std::uint64_t operator-(Lsn other) const { return value - other.value; }
    Lsn round_down(std::uint64_t unit) const { return Lsn{value - value % unit}; }
};

std::string to_string(Lsn lsn);
// The whole of `text`, 1-8 hex digits on each side. Errors: invalid_argument.
Result<Lsn> parse_lsn(std::string_view text);

using TimelineId = std::uint32_t;
using Xid = std::uint32_t;

inline constexpr std::uint32_t kWalPageBytes = 8192;  // XLOG_BLCKSZ of every packaged PostgreSQL

}  // namespace walvault
