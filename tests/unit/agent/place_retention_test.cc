#include "agent/place_retention.h"

#include <doctest/doctest.h>

namespace walvault::agent {

using namespace std::chrono_literals;

TEST_CASE("A window is narrowed by halves, from what is stored where there is less or no window") {
    using Windows = std::vector<std::chrono::seconds>;
    CHECK(narrower_windows(80s, 1000s) == Windows{40s, 20s, 10s});
    CHECK(narrower_windows(80s, 50s) == Windows{25s, 12s});
    CHECK(narrower_windows(0s, 44s) == Windows{22s, 11s});
    CHECK(narrower_windows(0s, 15s).empty());
    CHECK(narrower_windows(14 * 24h, 100 * 24h).front() == 7 * 24h);
}

}  // namespace walvault::agent
