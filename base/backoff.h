// Backoff: exponential waits with full jitter between attempts; reset by success.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace walvault {

class Backoff {
public:
    using Duration = std::chrono::milliseconds;
    // The n-th wait is drawn evenly from [limit/2, limit], limit = min(first * 2^n, most).
    Backoff(Duration first, Duration most, std::uint64_t seed)
        : first_(first), most_(most), limit_(first), random_(seed) {}

    Duration next() {
        std::uniform_int_distribution<Duration::rep> draw(limit_.count() / 2, limit_.count());
        Duration wait(draw(random_));
        limit_ = std::min(limit_ * 2, most_);
        return wait;
    }
    void reset() { limit_ = first_; }

private:
    Duration first_;
    Duration most_;
    Duration limit_;
    std::mt19937_64 random_;
};

}  // namespace walvault
