#include "base/crc32c.h"

#include <doctest/doctest.h>

#include <random>

using namespace walvault;

TEST_CASE("CRC-32C gives the published values") {
    CHECK(crc32c(as_bytes("123456789")) == 0xE3069283);
    CHECK(crc32c({}) == 0);
    // RFC 3720, B.4.
    CHECK(crc32c(ByteBuffer(32, std::byte{0})) == 0x8A9136AA);
    CHECK(crc32c(ByteBuffer(32, std::byte{0xFF})) == 0x62A8AB43);
    ByteBuffer rising(32);
    for (std::size_t i = 0; i < 32; ++i)
        rising[i] = static_cast<std::byte>(i);
    CHECK(crc32c(rising) == 0x46DD794E);
    ByteBuffer falling(rising.rbegin(), rising.rend());
    CHECK(crc32c(falling) == 0x113FDB5C);
}

TEST_CASE("the instruction and the tables agree at every length and alignment") {
    std::mt19937 random(7);
    ByteBuffer bytes(300);
    for (std::byte& byte : bytes)
        byte = static_cast<std::byte>(random());
    for (std::size_t from = 0; from < 9; ++from)
        for (std::size_t count = 0; count + from <= bytes.size(); ++count) {
            const ByteSpan part = ByteSpan(bytes).subspan(from, count);
            REQUIRE(crc32c_extend(kCrc32cInit, part) == crc32c_extend_portable(kCrc32cInit, part));
        }
    // Long ones are taken in stretches that run beside each other.
    bytes.resize(20000);
    for (std::byte& byte : bytes)
        byte = static_cast<std::byte>(random());
    for (std::size_t count = 300; count < bytes.size(); count += count < 500 ? 1 : 41) {
        const ByteSpan part = ByteSpan(bytes).subspan(count % 7).first(count - count % 7);
        REQUIRE(crc32c_extend(0x12345678, part) == crc32c_extend_portable(0x12345678, part));
    }
}

TEST_CASE("a CRC taken in pieces is the CRC of the whole") {
    const ByteSpan text = as_bytes("the quick brown fox jumps over the lazy dog");
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        const std::uint32_t state = crc32c_extend(kCrc32cInit, text.first(cut));
        CHECK(crc32c_finish(crc32c_extend(state, text.subspan(cut))) == crc32c(text));
    }
}
