#include "agent/upstream_times.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

SteadyTime at(std::chrono::milliseconds since_start) { return SteadyTime(since_start); }

}  // namespace

TEST_CASE("a position is as far behind as its next byte is old") {
    UpstreamTimes times;
    CHECK(times.behind(Lsn{100}, at(5s)) == 0s);
    times.note(Lsn{100}, at(1s));
    times.note(Lsn{100}, at(2s));
    times.note(Lsn{200}, at(3s));
    CHECK(times.behind(Lsn{200}, at(9s)) == 0s);
    CHECK(times.behind(Lsn{199}, at(9s)) == 6s);
    CHECK(times.behind(Lsn{100}, at(9s)) == 6s);
    CHECK(times.behind(Lsn{99}, at(9s)) == 8s);
}

TEST_CASE("what another server has not got says nothing") {
    UpstreamTimes times;
    times.note(Lsn{1000}, at(1s));
    times.note(Lsn{500}, at(2s));
    CHECK(times.behind(Lsn{500}, at(9s)) == 0s);
    CHECK(times.behind(Lsn{400}, at(9s)) == 7s);
}

TEST_CASE("a long time in many moves is never told too short, and takes bounded space") {
    UpstreamTimes times;
    for (unsigned i = 1; i <= 100'000; ++i)
        times.note(Lsn{i}, at(std::chrono::milliseconds(i)));
    const SteadyTime now = at(100'000ms);
    for (unsigned position : {0u, 10u, 50'000u, 99'000u, 99'999u}) {
        const auto behind = times.behind(Lsn{position}, now);
        const std::chrono::milliseconds least(100'000 - (position + 1));
        CHECK(behind >= least);
        CHECK(behind <= 2 * least + 1ms);
    }
}

}  // namespace walvault::agent
