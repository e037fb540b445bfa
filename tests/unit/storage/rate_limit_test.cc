#include "storage/rate_limit.h"

#include <doctest/doctest.h>

namespace walvault::storage {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("bytes go at the rate, whoever asks, and what was not used is not saved up") {
    const RateLimit::Time start(seconds(1000));
    RateLimit rate(1'000'000);
    CHECK(rate.piece_bytes() == 50'000);
    RateLimit::Time last{};
    for (int piece = 0; piece < 100; ++piece)
        last = rate.reserve(50'000, start);
    // The hundredth begins when 99 of them have gone.
    CHECK(last >= start + milliseconds(4'850));
    CHECK(last <= start + milliseconds(5'000));
    // After a long rest there is one burst and no more.
    const RateLimit::Time later = start + seconds(3600);
    CHECK(rate.reserve(50'000, later) <= later);
    CHECK(rate.reserve(50'000, later) <= later);
    CHECK(rate.reserve(50'000, later) > later);
}

TEST_CASE("what goes first waits for no pack, and the rate is kept all the same") {
    const RateLimit::Time start(seconds(1000));
    RateLimit rate(1'000'000);
    for (int piece = 0; piece < 20; ++piece)
        rate.reserve(50'000, start);
    CHECK(rate.reserve_first(100'000, start) <= start);
    // Only for what went first before it: 100 ms of bytes.
    const RateLimit::Time second = rate.reserve_first(100'000, start);
    CHECK(second >= start + milliseconds(50));
    CHECK(second <= start + milliseconds(100));
    // A second of packs and 200 ms of what went first are before the next one.
    CHECK(rate.reserve(50'000, start) >= start + milliseconds(1'150));
}

TEST_CASE("pieces are neither so small that they cost, nor so large that they stall") {
    CHECK(RateLimit(1).piece_bytes() == 4096);
    CHECK(RateLimit(std::uint64_t{1} << 40).piece_bytes() == 1 << 20);
}

}  // namespace walvault::storage
