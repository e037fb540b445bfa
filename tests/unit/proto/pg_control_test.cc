#include "proto/pg_control.h"

#include <doctest/doctest.h>

#include "base/crc32c.h"

using namespace walvault;

namespace {

// pg_control of a major, as far as it is read, with its CRC where that major has it.
ByteBuffer control_file(unsigned version = 1300, std::size_t crc_at = 288) {
    ByteBuffer bytes(8192);
    auto put = [&](std::size_t at, auto value) { store_le(bytes.data() + at, value); };
    put(0, std::uint64_t{7'711'439'459'751'663'614});
    put(8, version);
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
    put(crc_at, crc32c(ByteSpan(bytes).first(crc_at)));
    return bytes;
}

}  // namespace

namespace {

struct Version {
    unsigned number;
    std::size_t crc_at;
};
constexpr Version kVersions[] = {{1300, 288}, {1700, 288}, {1800, 292}};

void check_fields(const Version& version) {
    auto control = parse_pg_control(control_file(version.number, version.crc_at));
    REQUIRE(control);
    CHECK(control->control_version == version.number);
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

}  // namespace

TEST_CASE("the fields of pg_control are where PostgreSQL 14 to 18 have them") {
    for (const Version& version : kVersions)
        check_fields(version);
}

TEST_CASE("the CRC of pg_control is looked for where its version has it, and nowhere else") {
    CHECK(parse_pg_control(control_file(1700, 292)).error().code == Errc::corrupt);
    CHECK(parse_pg_control(control_file(1800, 288)).error().code == Errc::corrupt);
    CHECK(parse_pg_control(ByteSpan(control_file(1800, 292)).first(296)));
    CHECK(parse_pg_control(ByteSpan(control_file(1800, 292)).first(295)).error().code ==
          Errc::corrupt);
    CHECK(parse_pg_control(ByteSpan(control_file()).first(11)).error().code == Errc::corrupt);
}

TEST_CASE("a pg_control of a version that is not known is refused, and the known ones are named") {
    for (unsigned version : {1201U, 1302U, 1701U, 1900U}) {
        auto parsed = parse_pg_control(control_file(version));
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == Errc::unsupported);
        CHECK(parsed.error().message.find("1300, 1700, 1800") != std::string::npos);
    }
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
