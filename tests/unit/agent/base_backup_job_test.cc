#include "agent/base_backup_job.h"

#include <doctest/doctest.h>

namespace walvault::agent {
namespace {

constexpr std::uint64_t kGiB = 1ull << 30;

TEST_CASE("a base backup begins only where it leaves the reserve, a part of the disk, free") {
    CHECK(require_backup_space({.available_bytes = 15 * kGiB, .size_bytes = 100 * kGiB}, 10 * kGiB,
                               0.10));
    CHECK_FALSE(require_backup_space({.available_bytes = 15 * kGiB - 1, .size_bytes = 100 * kGiB},
                                     10 * kGiB, 0.10));
    CHECK(require_backup_space({.available_bytes = 5 * kGiB, .size_bytes = 100 * kGiB}, 10 * kGiB,
                               0.0));
    // However small the cluster is.
    CHECK_FALSE(
        require_backup_space({.available_bytes = 9 * kGiB, .size_bytes = 100 * kGiB}, 0, 0.10));
}

TEST_CASE("a disk too full for a base backup is told with its numbers") {
    auto refused = require_backup_space({.available_bytes = 3 * kGiB, .size_bytes = 20 * kGiB},
                                        4 * kGiB, 0.10);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::no_space);
    CHECK(refused.error().message ==
          "the disk of the repository has 3072 MiB of 20480 MiB free; this base backup may need "
          "2048 MiB, and 2048 MiB are the stream's reserve");
}

}  // namespace
}  // namespace walvault::agent
