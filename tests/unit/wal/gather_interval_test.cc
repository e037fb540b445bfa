#include "wal/gather_interval.h"

#include <doctest/doctest.h>

namespace walvault::wal {
namespace {

using namespace std::chrono_literals;

TEST_CASE("few messages gather for longer and longer, many for the shortest time at once") {
    GatherInterval gather;
    CHECK(gather.next(10) == 200us);
    CHECK(gather.next(0) == 400us);
    CHECK(gather.next(GatherInterval::kFew) == 400us);
    CHECK(gather.next(GatherInterval::kMany) == 400us);
    for (int i = 0; i < 10; ++i)
        gather.next(1);
    CHECK(gather.next(1) == GatherInterval::kLongest);
    CHECK(gather.next(GatherInterval::kMany + 1) == GatherInterval::kShortest);
}

// What comes while it gathers must not fill the socket, or the server stands still.
TEST_CASE("at any speed fewer messages come in an interval than a socket holds") {
    constexpr double kSocketHolds = 250;
    for (double per_second = 10; per_second < 1.2e6; per_second *= 1.07) {
        GatherInterval gather;
        double came = 0;
        for (int i = 0; i < 1000; ++i)
            came = per_second *
                   std::chrono::duration<double>(gather.next(static_cast<unsigned>(came))).count();
        INFO("messages a second: ", per_second);
        CHECK(came < kSocketHolds);
    }
}

}  // namespace
}  // namespace walvault::wal
