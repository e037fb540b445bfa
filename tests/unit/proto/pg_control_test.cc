#include "proto/pg_control.h"

#include <doctest/doctest.h>

#include "base/crc32c.h"

using namespace walvault;

namespace {

ByteBuffer control_file() {
    ByteBuffer bytes(8192);
    auto put = [&](std::size_t at, auto value) { store_le(bytes.data() + at, value); };
    put(0, std::uint64_t{7'711'439'459'751'663'614});
    put(8, 1300U);
    put(12, 202209061U);
    put(32, std::uint64_t{0xA9CC18});
    put(48, 3U);
    put(180, 100U);
    put(184, 8U);
    put(188, 10U);
    put(192, 12U);
    put(196, 64U);
    put(228, 1U << 20);
    put(252, 1U);
    put(288, crc32c(ByteSpan(bytes).first(288)));
    return bytes;
}

}  // namespace

TEST_CASE("the fields of pg_control are where PostgreSQL 15 has them") {
    auto control = parse_pg_control(control_file());
    REQUIRE(control);
    CHECK(control->system_identifier == 7'711'439'459'751'663'614);
    CHECK(control->catalog_version == 202209061);
    CHECK(control->checkpoint_lsn == Lsn{0xA9CC18});
    CHECK(control->timeline == 3);
    CHECK(control->max_connections == 100);
    CHECK(control->max_worker_processes == 8);
    CHECK(control->max_wal_senders == 10);
    CHECK(control->max_prepared_transactions == 12);
    CHECK(control->max_locks_per_transaction == 64);
    CHECK(control->wal_segment_bytes == 1 << 20);
    CHECK(control->data_checksum_version == 1);
}

TEST_CASE("a pg_control that is damaged, short or of another version is refused") {
    for (std::size_t at = 0; at < 292; ++at) {
        ByteBuffer bytes = control_file();
        bytes[at] ^= std::byte{4};
        auto parsed = parse_pg_control(bytes);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == (at >= 8 && at < 12 ? Errc::unsupported : Errc::corrupt));
    }
    CHECK(parse_pg_control(ByteSpan(control_file()).first(292)));
    CHECK(parse_pg_control(ByteSpan(control_file()).first(291)).error().code == Errc::corrupt);
}
