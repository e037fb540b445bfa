// Clock: wall and steady time as a seam, and the microsecond timestamps PostgreSQL's WAL carries.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <string>

namespace walvault {

// Microseconds since 1970-01-01 00:00:00 UTC; PostgreSQL's resolution. Zero means "none".
using Micros = std::chrono::microseconds;
using WallTime = std::chrono::time_point<std::chrono::system_clock, Micros>;
using SteadyTime = std::chrono::steady_clock::time_point;

// PostgreSQL counts microseconds from 2000-01-01 00:00:00 UTC (TimestampTz).
inline constexpr std::int64_t kPostgresEpochMicros = 946'684'800'000'000;
inline WallTime from_postgres_micros(std::int64_t micros) {
    return WallTime(Micros(micros + kPostgresEpochMicros));
}
inline std::int64_t to_postgres_micros(WallTime at) {
    return at.time_since_epoch().count() - kPostgresEpochMicros;
}
inline double to_seconds(WallTime at) {
    return static_cast<double>(at.time_since_epoch().count()) / 1e6;
}

// "2026-08-22T12:02:57.981204Z"; microseconds always written, so that the text sorts.
std::string to_utc_text(WallTime at);

class Clock {
public:
    virtual ~Clock() = default;
    virtual WallTime now() const = 0;
    virtual SteadyTime steady_now() const = 0;
};

// The machine's clocks.
const Clock& system_clock();

}  // namespace walvault
