#include "proto/value_columns.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

using namespace walvault;
using Coding = ColumnCoding;

namespace {

struct ColumnRead {
    Coding coding;
    std::size_t bytes = 0;  // that were written
    std::vector<std::string> values;
};

ValueReader open(const ValueColumn& column) {
    return ValueReader::open(static_cast<std::uint8_t>(column.coding), column.form, column.lengths,
                             column.bytes)
        .value();
}

ColumnRead written_and_read(const std::vector<std::string>& values) {
    const std::vector<std::string_view> views(values.begin(), values.end());
    const ValueColumn column = encode_values(views);
    ColumnRead read{.coding = column.coding,
                    .bytes = column.lengths.size() + column.bytes.size(),
                    .values = {}};
    ValueReader reader = open(column);
    ByteBuffer room(100'000);
    while (!reader.at_end()) {
        const auto bytes = reader.next(room);
        REQUIRE(bytes);
        read.values.emplace_back(as_text(ByteSpan(room).first(*bytes)));
    }
    CHECK_FALSE(reader.next(room));
    return read;
}

void check(Coding coding, const std::vector<std::string>& values) {
    CAPTURE(values);
    const ColumnRead read = written_and_read(values);
    CHECK(read.coding == coding);
    CHECK(read.values == values);
}

}  // namespace

TEST_CASE("varints") {
    ByteBuffer bytes;
    const std::vector<std::uint64_t> numbers = {0, 1, 127, 128, 16'383, 16'384, 1ULL << 62, ~0ULL};
    std::size_t sum = 0;
    for (std::uint64_t each : numbers) {
        append_varint(bytes, each);
        sum += varint_bytes(each);
        CHECK(bytes.size() == sum);
    }
    VarintReader reader(bytes);
    for (std::uint64_t each : numbers) {
        std::uint64_t read = 0;
        REQUIRE(reader.next(read));
        CHECK(read == each);
    }
    CHECK(reader.at_end());
    for (std::int64_t each : {std::int64_t{0}, std::int64_t{-1}, INT64_MAX, INT64_MIN})
        CHECK(unzigzag(zigzag(static_cast<std::uint64_t>(each))) ==
              static_cast<std::uint64_t>(each));
    CHECK(zigzag(static_cast<std::uint64_t>(-3)) == 5);
    std::uint64_t read = 0;
    for (const char* bad : {"\x80", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                            "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"})
        CHECK_FALSE(VarintReader(as_bytes(bad)).next(read));
}

TEST_CASE("numbers, where all of them are as PostgreSQL writes numbers") {
    check(Coding::number, {"0", "1", "-1", "4711", "999999999999999999", "-999999999999999999"});
    check(Coding::number, {"0.00", "-0.01", "12.50", "-300.07"});
    check(Coding::number, {"0.12345678901234567"});
    // Not canonical, or not all of one kind.
    check(Coding::text, {"1", "02"});
    check(Coding::text, {"1", "-0"});
    check(Coding::text, {"1.0", "2"});
    check(Coding::text, {"1.0", "2.00"});
    check(Coding::text, {"1", "-0.0"});
    check(Coding::text, {"0.0", "-0.0"});
    check(Coding::text, {"1", ""});
    check(Coding::text, {"1", "+1"});
    check(Coding::text, {"1", "1e5"});
    check(Coding::text, {"-"});
    check(Coding::text, {".5"});
    check(Coding::text, {"5."});
    check(Coding::text, {"NaN"});
    check(Coding::text, {"9223372036854775807", "1"});  // 19 digits
}

TEST_CASE("numbers that rise are told by their differences") {
    std::vector<std::string> values;
    for (int i = 0; i < 1000; ++i)
        values.push_back(std::to_string(123'456'789'000LL + 7 * i));
    const ColumnRead read = written_and_read(values);
    CHECK(read.values == values);
    CHECK(read.bytes < 1010);
}

TEST_CASE("times") {
    check(Coding::time, {"2026-11-26 19:50:25.326061+00", "2026-11-26 19:50:25+00",
                         "1969-12-31 23:59:59.9+00", "0001-01-01 00:00:00+00",
                         "9999-12-31 23:59:59.999999+00", "2000-02-29 00:00:00.000001+00"});
    check(Coding::time, {"2026-11-26 19:50:25.32", "1900-03-01 00:00:00"});
    check(Coding::time, {"2026-11-26", "1600-02-29", "0001-01-01", "9999-12-31"});
    check(Coding::text, {"2026-11-26", "2026-11-26 00:00:00"});
    check(Coding::text, {"2026-11-26 00:00:00", "2026-11-26 00:00:00+00"});
    check(Coding::text, {"2026-11-26 00:00:00.10+00"});
    check(Coding::text, {"2026-11-26 00:00:00.+00"});
    check(Coding::text, {"2026-11-26 00:00:00.1234567+00"});
    check(Coding::text, {"2026-02-29"});
    check(Coding::text, {"2026-11-26 24:00:00+00"});
    check(Coding::text, {"2026-11-26 00:00:60+00"});
    check(Coding::text, {"0044-03-15 BC"});
    check(Coding::text, {"infinity"});
    check(Coding::text, {"0000-01-01"});
    check(Coding::text, {"12026-01-01"});
}

TEST_CASE("UUIDs and hexadecimal") {
    check(Coding::uuid,
          {"3f2504e0-4f89-11d3-9a0c-0305e82c3301", "00000000-0000-0000-0000-000000000000"});
    check(Coding::text, {"3F2504E0-4F89-11D3-9A0C-0305E82C3301"});
    check(Coding::text, {"3f2504e0-4f89-11d3-9a0c-0305e82c33011"});
    check(Coding::text, {"3f2504e004f89-11d3-9a0c-0305e82c3301"});
    check(Coding::hex, {"d41d8cd98f00b204e9800998ecf8427e", "0cc175b9c0f1b6a831c399e269772661"});
    check(Coding::hex, {"\\x00ff00ff00ff", "\\x", "\\xdeadbeefdeadbeef"});
    check(Coding::text, {"\\x00ff00ff00ff", "00ff00ff00ff"});
    check(Coding::text, {"d41d8cd98f00b204e9800998ecf8427"});
    check(Coding::text, {"D41D8CD98F00B204E9800998ECF8427E"});
    check(Coding::text, {"ab", "cd"});  // too short to be worth it
}

TEST_CASE("a value is found in each coding, and others are passed over") {
    const std::vector<std::vector<std::string>> columns = {
        {"1", "-17", "4711", "17"},
        {"1.00", "-0.17", "0.17", "17.00"},
        {"2026-11-26", "2026-11-27"},
        {"2026-11-26 19:50:25+00", "2026-11-26 19:50:25.5+00"},
        {"3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3f2504e0-4f89-11d3-9a0c-0305e82c3302"},
        {"d41d8cd98f00b204e9800998ecf8427e", "d41d8cd98f00b204",
         "d41d8cd98f00b205e9800998ecf8427e"},
        {"\\xd41d8cd98f00b204e9800998ecf8427e", "\\xd41d8cd9"},
        {"one", "", "onetwo", "two"},
    };
    const std::vector<std::string> others = {"17",    "-17",
                                             "17.0",  "0017",
                                             "",      "1",
                                             "0.170", "\\x",
                                             "x",     "2026-11-26 19:50:25",
                                             "-",     "d41d8cd98f00b204e9800998ecf8427"};
    for (const auto& values : columns) {
        CAPTURE(values);
        const std::vector<std::string_view> views(values.begin(), values.end());
        const ValueColumn column = encode_values(views);
        std::vector<std::string> sought = others;
        for (const auto& each : columns)
            sought.insert(sought.end(), each.begin(), each.end());
        for (const std::string& text : sought) {
            CAPTURE(text);
            ValueReader reader = open(column);
            const SoughtValue wanted(text);
            for (const std::string& value : values)
                CHECK(reader.next_is(wanted) == (value == text));
            CHECK(reader.at_end());
            CHECK_FALSE(reader.next_is(wanted));
        }
        ByteBuffer room(100);
        for (std::size_t count = 0; count < values.size(); ++count) {
            ValueReader reader = open(column);
            REQUIRE(reader.skip(count));
            const auto bytes = reader.next(room);
            REQUIRE(bytes);
            CHECK(as_text(ByteSpan(room).first(*bytes)) == values[count]);
            CHECK_FALSE(reader.skip(values.size() - count));
        }
    }
}

TEST_CASE("text of any bytes") {
    check(Coding::text, {"", "a", std::string("\0\xff", 2), std::string(70'000, 'x')});
    check(Coding::text, {});
}

TEST_CASE("what is malformed gives nothing") {
    CHECK_FALSE(ValueReader::open(5, 0, {}, {}));
    CHECK_FALSE(ValueReader::open(1, 18, {}, {}));
    CHECK_FALSE(ValueReader::open(2, 3, {}, {}));
    CHECK_FALSE(ValueReader::open(3, 2, {}, {}));
    CHECK_FALSE(ValueReader::open(4, 1, {}, {}));
    ByteBuffer room(100);
    const auto next = [&](Coding coding, std::uint8_t form, std::string_view lengths,
                          std::string_view bytes) {
        return ValueReader::open(static_cast<std::uint8_t>(coding), form, as_bytes(lengths),
                                 as_bytes(bytes))
            .value()
            .next(room);
    };
    CHECK_FALSE(next(Coding::text, 0, "\x05", "abcd"));
    CHECK_FALSE(next(Coding::hex, 0, "\x05", "abcd"));
    CHECK_FALSE(next(Coding::uuid, 0, "", "0123456789abcde"));
    ByteBuffer far;
    for (std::uint64_t value :
         {std::uint64_t{1} << 63, ~std::uint64_t{0} >> 1, std::uint64_t{4'000'000}}) {
        far.clear();
        append_varint(far, zigzag(value));
        CHECK_FALSE(next(Coding::time, 0, "", as_text(far)));
    }
    far.clear();
    append_varint(far, zigzag(std::uint64_t{1} << 63));
    CHECK_FALSE(next(Coding::time, 1, "", as_text(far)));
    CHECK(next(Coding::number, 0, "", as_text(far)) == 20);  // -9223372036854775808
    room.resize(3);
    CHECK_FALSE(next(Coding::text, 0, "\x04", "abcd"));
    CHECK_FALSE(next(Coding::number, 0, "", as_text(far)));
}
