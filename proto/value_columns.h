// The values of one column beside one another: PostgreSQL's text, in fewer bytes where all of them
// are numbers, times, UUIDs or hexadecimal. docs/journal.md has the format. Pure.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "proto/varint.h"

namespace walvault {

enum class ColumnCoding : std::uint8_t { text = 0, number = 1, time = 2, hex = 3, uuid = 4 };

struct ValueColumn {
    ColumnCoding coding = ColumnCoding::text;
    std::uint8_t form = 0;  // of a number, a time or hexadecimal
    ByteBuffer lengths;     // of text and hexadecimal
    ByteBuffer bytes;
};

// Takes what fits to all of `values`, which are each at most 2^32 - 1 bytes.
ValueColumn encode_values(std::span<const std::string_view> values);

// A text that is looked for among values, taken apart once.
struct SoughtValue {
    explicit SoughtValue(std::string_view sought);
    std::string_view text;
    std::size_t scale = 0;               // digits behind its point
    std::optional<std::int64_t> number;  // without the point; nothing: it is none
    bool has_hex_prefix = false;
    std::optional<ByteBuffer> hex;  // what it is hexadecimal for
};

// Gives them back, byte for byte and one by one.
class ValueReader {
public:
    ValueReader() = default;
    // Views into what the caller owns. Errors: corrupt for a coding or form that is unknown.
    static Result<ValueReader> open(std::uint8_t coding, std::uint8_t form, ByteSpan lengths,
                                    ByteSpan bytes);
    // Writes the next value to `out`; how many bytes, or nothing where there is none, where it is
    // malformed, or where `out` is too small.
    std::optional<std::size_t> next(MutableByteSpan out);
    // Whether the next value is this one; nothing as in next().
    std::optional<bool> next_is(const SoughtValue& sought);
    // Passes over so many. False where there are fewer.
    bool skip(std::size_t count);
    bool at_end() const { return lengths_.at_end() && numbers_.at_end() && bytes_.empty(); }

private:
    std::optional<std::size_t> next_text(MutableByteSpan out);
    std::optional<std::size_t> next_hex(MutableByteSpan out);
    std::optional<std::size_t> next_uuid(MutableByteSpan out);
    std::optional<std::size_t> next_number(MutableByteSpan out);
    std::optional<std::size_t> next_time(MutableByteSpan out);
    bool next_integer(std::uint64_t& value);

    ColumnCoding coding_ = ColumnCoding::text;
    std::uint8_t form_ = 0;
    VarintReader lengths_;
    VarintReader numbers_;
    ByteSpan bytes_;
    std::uint64_t last_ = 0;
    std::int64_t day_ = 0;  // whose text is in day_text_
    std::array<char, 10> day_text_{};
};

}  // namespace walvault
