#include "proto/replication_message.h"

#include <doctest/doctest.h>

using namespace walvault;

namespace {

ByteBuffer wal_message(std::uint64_t start, std::uint64_t end, std::int64_t at,
                       std::string_view wal) {
    ByteBuffer message{static_cast<std::byte>('w')};
    append_be(message, start);
    append_be(message, end);
    append_be(message, at);
    append(message, as_bytes(wal));
    return message;
}

}  // namespace

TEST_CASE("WAL data is decoded without copying it") {
    ByteBuffer message = wal_message(0x3000000, 0x3000100, 1'000'000, "bytes");
    auto decoded = decode_server_message(message);
    REQUIRE(decoded);
    const auto& data = std::get<XLogData>(*decoded);
    CHECK(data.start_lsn == Lsn{0x3000000});
    CHECK(data.server_end_lsn == Lsn{0x3000100});
    CHECK(to_utc_text(data.sent_at) == "2000-01-01T00:00:01.000000Z");
    CHECK(as_text(data.wal) == "bytes");
    CHECK(data.wal.data() == message.data() + 25);
}

TEST_CASE("a keepalive has exactly 18 bytes") {
    ByteBuffer message{static_cast<std::byte>('k')};
    append_be(message, std::uint64_t{0x10});
    append_be(message, std::int64_t{0});
    message.push_back(std::byte{1});
    auto decoded = decode_server_message(message);
    REQUIRE(decoded);
    CHECK(std::get<Keepalive>(*decoded).server_end_lsn == Lsn{0x10});
    CHECK(std::get<Keepalive>(*decoded).reply_requested);
    message.push_back(std::byte{0});
    CHECK(decode_server_message(message).error().code == Errc::corrupt);
    message.resize(17);
    CHECK(decode_server_message(message).error().code == Errc::corrupt);
}

TEST_CASE("short, unknown and impossible messages are refused") {
    CHECK_FALSE(decode_server_message({}));
    CHECK_FALSE(decode_server_message(as_bytes("x12345678901234567")));
    ByteBuffer message = wal_message(1, 2, 3, "");
    CHECK(decode_server_message(message));
    message.pop_back();
    CHECK_FALSE(decode_server_message(message));
    CHECK_FALSE(decode_server_message(wal_message(~0ULL - 2, 2, 3, "four")));
    CHECK(decode_server_message(wal_message(1, 2, INT64_MAX, "hostile time")));
}

TEST_CASE("a standby status update has 34 big-endian bytes") {
    ByteBuffer bytes = encode_standby_status({.written_lsn = Lsn{3},
                                              .flushed_lsn = Lsn{2},
                                              .applied_lsn = Lsn{1},
                                              .sent_at = from_postgres_micros(5),
                                              .reply_requested = true});
    CHECK(to_hex(bytes) ==
          "72"
          "0000000000000003"
          "0000000000000002"
          "0000000000000001"
          "0000000000000005"
          "01");
}
