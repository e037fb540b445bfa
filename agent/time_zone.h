// The system's database of time zones. To look into it takes milliseconds, since each of its some
// 600 files is looked at: a command that only speaks of UTC does not.
#pragma once

#ifndef USE_OS_TZDB
#define USE_OS_TZDB 1
#endif
#include <date/tz.h>

#include <string>

namespace walvault::agent {

// By its name; null where the database has none of that name. The first call reads the database.
const date::time_zone* find_zone(const std::string& name);

// Whether it is UTC by its usual names.
[[nodiscard]] bool is_utc(const std::string& name);

// The name of the zone that /etc/localtime says, of the database, or "Etc/UTC".
std::string system_zone();

}  // namespace walvault::agent
