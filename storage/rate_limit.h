// RateLimit: when the next bytes may go, so that no more than so many go in a second. Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace walvault::storage {

// What was not used is not saved up, but for kBurst.
class RateLimit {
public:
    using Time = std::chrono::steady_clock::time_point;
    static constexpr std::chrono::milliseconds kBurst{50};

    explicit RateLimit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

    // The most that is worth asking for at once: small, so that what is sent flows.
    std::uint64_t piece_bytes() const {
        return std::clamp<std::uint64_t>(bytes_per_second_ / 20, 4096, std::uint64_t{1} << 20);
    }
    // Takes `bytes` into account and returns when they may go.
    Time reserve(std::uint64_t bytes, Time now) {
        const Time start = std::max(next_, now - kBurst);
        next_ = start + time_of(bytes);
        return start;
    }
    // The same of bytes that wait for no others than such; those are put off by it.
    Time reserve_first(std::uint64_t bytes, Time now) {
        const Time start = std::max(next_first_, now - kBurst);
        next_first_ = start + time_of(bytes);
        next_ = std::max(next_, now - kBurst) + time_of(bytes);
        return start;
    }

private:
    Time::duration time_of(std::uint64_t bytes) const {
        const auto seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
        return std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(seconds));
    }

    std::uint64_t bytes_per_second_;
    Time next_{};
    Time next_first_{};
};

}  // namespace walvault::storage
