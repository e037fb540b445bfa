#include "proto/wal_file_name.h"

#include <doctest/doctest.h>

#include "base/bytes.h"

using namespace walvault;

TEST_CASE("segment names count with the segment size") {
    CHECK(segment_file_name(1, 5 * 256 + 0xAA, 16_MiB) == "0000000100000005000000AA");
    CHECK(segment_file_name(0x1F, 4096 + 4095, 1_MiB) == "0000001F0000000100000FFF");
    CHECK(segment_file_name(1, 4 + 3, 1_GiB) == "000000010000000100000003");
    auto parsed = parse_wal_file_name("0000000100000005000000AA", 16_MiB);
    REQUIRE(parsed);
    CHECK(parsed->kind == WalFileName::Kind::segment);
    CHECK(parsed->timeline == 1);
    CHECK(parsed->start_lsn(16_MiB) == Lsn{0x5'AA00'0000});
    CHECK(parse_wal_file_name("000000010000000100000003", 1_GiB)->start_lsn(1_GiB) ==
          Lsn{0x1'C000'0000});
}

TEST_CASE("the other names of pg_wal are told apart") {
    CHECK(parse_wal_file_name("00000002.history", 16_MiB)->kind == WalFileName::Kind::history);
    CHECK(parse_wal_file_name("00000002.history", 16_MiB)->timeline == 2);
    CHECK(history_file_name(0xA2) == "000000A2.history");
    CHECK(parse_wal_file_name("0000000100000005000000AA.partial", 16_MiB)->kind ==
          WalFileName::Kind::partial);
    CHECK(parse_wal_file_name("0000000100000005000000AA.00000028.backup", 16_MiB)->kind ==
          WalFileName::Kind::backup_label);
}

TEST_CASE("names that PostgreSQL does not write are refused") {
    for (const char* name :
         {"", "0000000100000005000000A", "0000000100000005000000AAA", "0000000100000005000000aa",
          "000000010000000500000100", "0000000000000005000000AA", "0000000100000005000000AG",
          "0000000100000005000000AA.part", "0000000100000005000000AA.0000028.backup",
          "0000000100000005000000AA.01000000.backup", "../0000000100000005000000AA",
          "00000000.history", "00000002.histor", "0000000100000005000000AA\n"}) {
        INFO(name);
        auto parsed = parse_wal_file_name(name, 16_MiB);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == Errc::invalid_argument);
    }
    for (std::uint64_t bytes : {0ULL, 1ULL << 19, 3ULL << 20, 1ULL << 31})
        CHECK_FALSE(parse_wal_file_name("0000000100000005000000AA", bytes));
}
