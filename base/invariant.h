// WV_ASSERT: broken invariants end the process, in release builds too, before a wrong thing is
// acknowledged.
#pragma once

namespace walvault {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);
}

#define WV_ASSERT(expression)            \
    ((expression) ? static_cast<void>(0) \
                  : ::walvault::assertion_failed(#expression, __FILE__, __LINE__))
