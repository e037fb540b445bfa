#include "base/backoff.h"

#include <doctest/doctest.h>

using namespace walvault;
using namespace std::chrono_literals;

TEST_CASE("each wait lies in the upper half of a limit that doubles up to the most") {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Backoff backoff(100ms, 1500ms, seed);
        for (auto limit : {100ms, 200ms, 400ms, 800ms, 1500ms, 1500ms, 1500ms}) {
            const auto wait = backoff.next();
            CHECK(wait >= limit / 2);
            CHECK(wait <= limit);
        }
        backoff.reset();
        CHECK(backoff.next() <= 100ms);
    }
}

TEST_CASE("waits of different seeds differ, those of one seed repeat") {
    Backoff first(1000ms, 60'000ms, 1);
    Backoff again(1000ms, 60'000ms, 1);
    Backoff other(1000ms, 60'000ms, 2);
    bool differs = false;
    for (int i = 0; i < 5; ++i) {
        const auto wait = first.next();
        CHECK(wait == again.next());
        differs = differs || wait != other.next();
    }
    CHECK(differs);
}
