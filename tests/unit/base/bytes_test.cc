#include "base/bytes.h"

#include <doctest/doctest.h>

#include "base/shared_prefix.h"

using namespace walvault;

TEST_CASE("integers are stored and loaded in both byte orders") {
    ByteBuffer bytes;
    append_le(bytes, std::uint32_t{0x01020304});
    append_be(bytes, std::uint32_t{0x01020304});
    append_be(bytes, std::uint16_t{0x0506});
    append_be(bytes, std::int64_t{-2});
    append_be(bytes, std::uint8_t{7});
    CHECK(to_hex(bytes) ==
          "04030201"
          "01020304"
          "0506"
          "fffffffffffffffe"
          "07");
    ByteReader reader(bytes);
    CHECK(reader.le<std::uint32_t>() == 0x01020304);
    CHECK(reader.be<std::uint32_t>() == 0x01020304);
    CHECK(reader.be<std::uint16_t>() == 0x0506);
    CHECK(reader.be<std::int64_t>() == -2);
    CHECK(reader.be<std::uint8_t>() == 7);
    CHECK(reader.ok());
    CHECK(reader.remaining() == 0);
}

TEST_CASE("a read past the end gives zeros from then on") {
    const ByteBuffer bytes(6, std::byte{0xFF});
    ByteReader reader(bytes);
    CHECK(reader.le<std::uint32_t>() == 0xFFFFFFFF);
    CHECK(reader.le<std::uint32_t>() == 0);
    CHECK_FALSE(reader.ok());
    CHECK(reader.le<std::uint8_t>() == 0);
    CHECK(reader.bytes(0).empty());
    CHECK(reader.position() == 4);
    ByteReader other(bytes);
    CHECK(other.bytes(~std::size_t{0}).empty());
    CHECK_FALSE(other.ok());
}

TEST_CASE("hexadecimal text is taken only when it is exact") {
    Id16 id{};
    CHECK(from_hex("000102030405060708090A0b0c0d0e0f", id));
    CHECK(to_hex(id) == "000102030405060708090a0b0c0d0e0f");
    CHECK_FALSE(from_hex("00010203040506070809", id));
    CHECK_FALSE(from_hex("000102030405060708090A0b0c0d0e0f00", id));
    CHECK_FALSE(from_hex("000102030405060708090A0b0c0d0e0g", id));
    CHECK(to_hex({}).empty());
    CHECK(from_hex("", MutableByteSpan{}));
}

TEST_CASE("runs of bytes share what comes before the first that differs") {
    const ByteBuffer run(1000, std::byte{7});
    CHECK(shared_prefix_bytes({}, run) == 0);
    CHECK(shared_prefix_bytes(run, run) == 1000);
    CHECK(shared_prefix_bytes(run, ByteSpan(run).first(999)) == 999);
    CHECK(shared_prefix_bytes(ByteSpan(run).first(1), run) == 1);
    for (const std::size_t at : {0u, 1u, 500u, 999u}) {
        ByteBuffer other = run;
        other[at] = std::byte{8};
        CHECK(shared_prefix_bytes(run, other) == at);
        CHECK(shared_prefix_bytes(other, ByteSpan(run).first(at)) == at);
    }
}
