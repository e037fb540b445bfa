#include "proto/value_columns.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace walvault {
namespace {

// Forms. Of a number: how many digits stand behind the point, and whether each is told as its
// difference to the one before it. Of a time: what it has beside the day, and the same. Of
// hexadecimal: whether "\x" stands before it.
constexpr std::uint8_t kScaleMask = 0x1f;
constexpr std::uint8_t kDifferences = 0x80;
constexpr std::uint8_t kDayOnly = 0, kWithTime = 1, kWithZone = 2;
constexpr std::uint8_t kHexPrefix = 1;

constexpr std::size_t kDigitsMax = 18;  // what 63 bits always hold
// Below this, zstd finds as much in the text.
constexpr std::size_t kHexBytesOfValueMin = 4;
constexpr std::int64_t kDayMicros = 86'400'000'000;
constexpr std::string_view kZone = "+00";

using Values = std::span<const std::string_view>;

bool is_digit(char each) { return each >= '0' && each <= '9'; }

// A number with `scale` digits behind its point as PostgreSQL writes it, without the point; nothing
// for other text.
std::optional<std::int64_t> number_of(std::string_view text, std::size_t scale) {
    const bool is_negative = text.starts_with('-');
    if (is_negative) text.remove_prefix(1);
    const std::size_t point = scale == 0 ? 0 : 1;
    if (text.size() <= scale + point || text.size() > kDigitsMax + point) return std::nullopt;
    const std::size_t whole = text.size() - scale - point;
    if (whole > 1 && text[0] == '0') return std::nullopt;
    if (scale > 0 && text[whole] != '.') return std::nullopt;
    std::int64_t value = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (scale > 0 && i == whole) continue;
        if (!is_digit(text[i])) return std::nullopt;
        value = 10 * value + (text[i] - '0');
    }
    if (is_negative && value == 0) return std::nullopt;
    return is_negative ? -value : value;
}

// Varints, as they are or as differences, whichever is shorter.
std::uint8_t append_integers(ByteBuffer& out, const std::vector<std::int64_t>& integers) {
    std::size_t plain = 0;
    std::size_t differences = 0;
    std::uint64_t last = 0;
    for (std::int64_t each : integers) {
        const auto value = static_cast<std::uint64_t>(each);
        plain += varint_bytes(zigzag(value));
        differences += varint_bytes(zigzag(value - last));
        last = value;
    }
    const bool by_difference = differences < plain;
    last = 0;
    for (std::int64_t each : integers) {
        const auto value = static_cast<std::uint64_t>(each);
        append_varint(out, zigzag(by_difference ? value - last : value));
        last = value;
    }
    return by_difference ? kDifferences : std::uint8_t{0};
}

// Of all values what `parse` makes of them; nothing where one is something else.
template <class Parse>
std::optional<ValueColumn> as_integers(Values values, ColumnCoding coding, std::size_t form,
                                       Parse parse) {
    std::vector<std::int64_t> integers;
    for (std::string_view each : values) {
        const std::optional<std::int64_t> integer = parse(each);
        if (!integer) return std::nullopt;
        integers.push_back(*integer);
    }
    ValueColumn column{.coding = coding};
    column.form = append_integers(column.bytes, integers);
    column.form = static_cast<std::uint8_t>(column.form | form);
    return column;
}

std::optional<ValueColumn> as_numbers(Values values) {
    const std::size_t point = values[0].find('.');
    const std::size_t scale = point == std::string_view::npos ? 0 : values[0].size() - point - 1;
    if (scale >= kDigitsMax || (point != std::string_view::npos && scale == 0)) return std::nullopt;
    return as_integers(values, ColumnCoding::number, scale,
                       [scale](std::string_view each) { return number_of(each, scale); });
}

// So many digits from `at` on; nothing where they are not all digits.
std::optional<int> digits_of(std::string_view text, std::size_t at, std::size_t count) {
    int value = 0;
    for (std::size_t i = at; i < at + count; ++i) {
        if (!is_digit(text[i])) return std::nullopt;
        value = 10 * value + (text[i] - '0');
    }
    return value;
}

// "YYYY-MM-DD"; days since 1970.
std::optional<std::int64_t> day_of(std::string_view text) {
    using namespace std::chrono;
    if (text.size() < 10 || text[4] != '-' || text[7] != '-') return std::nullopt;
    const auto y = digits_of(text, 0, 4);
    const auto m = digits_of(text, 5, 2);
    const auto d = digits_of(text, 8, 2);
    if (!y || *y == 0 || !m || !d) return std::nullopt;
    const year_month_day date{year(*y), month(static_cast<unsigned>(*m)),
                              day(static_cast<unsigned>(*d))};
    if (!date.ok()) return std::nullopt;
    return sys_days(date).time_since_epoch().count();
}

// " HH:MM:SS", and up to six digits behind a point of which the last is not 0; microseconds.
std::optional<std::int64_t> time_of_day(std::string_view text) {
    if (text.size() < 9 || text[0] != ' ' || text[3] != ':' || text[6] != ':') return std::nullopt;
    const auto hours = digits_of(text, 1, 2);
    const auto minutes = digits_of(text, 4, 2);
    const auto seconds = digits_of(text, 7, 2);
    if (!hours || !minutes || !seconds || *hours > 23 || *minutes > 59 || *seconds > 59)
        return std::nullopt;
    std::int64_t micros = ((*hours * 60 + *minutes) * 60 + *seconds) * std::int64_t{1'000'000};
    text.remove_prefix(9);
    if (text.empty()) return micros;
    if (text[0] != '.' || text.size() < 2 || text.size() > 7 || text.back() == '0')
        return std::nullopt;
    const auto fraction = digits_of(text, 1, text.size() - 1);
    if (!fraction) return std::nullopt;
    std::int64_t scaled = *fraction;
    for (std::size_t digits = text.size() - 1; digits < 6; ++digits)
        scaled *= 10;
    return micros + scaled;
}

std::optional<std::int64_t> time_of(std::string_view text, std::uint8_t form) {
    const auto day = day_of(text);
    if (!day) return std::nullopt;
    if (form == kDayOnly) return text.size() == 10 ? day : std::nullopt;
    text.remove_prefix(10);
    if (form == kWithZone) {
        if (!text.ends_with(kZone)) return std::nullopt;
        text.remove_suffix(kZone.size());
    }
    const auto micros = time_of_day(text);
    if (!micros) return std::nullopt;
    return *day * kDayMicros + *micros;
}

std::optional<ValueColumn> as_times(Values values) {
    const std::uint8_t form = values[0].size() == 10       ? kDayOnly
                              : values[0].ends_with(kZone) ? kWithZone
                                                           : kWithTime;
    return as_integers(values, ColumnCoding::time, form,
                       [form](std::string_view each) { return time_of(each, form); });
}

constexpr std::uint8_t kNoDigit = 0xFF;
constexpr std::array<std::uint8_t, 256> kHexValues = [] {
    std::array<std::uint8_t, 256> values;
    values.fill(kNoDigit);
    for (std::uint8_t i = 0; i < 16; ++i)
        values[static_cast<unsigned char>("0123456789abcdef"[i])] = i;
    return values;
}();

// False for what is not hexadecimal in pairs of small letters.
bool append_hex(ByteBuffer& out, std::string_view text) {
    if (text.size() % 2 != 0) return false;
    std::size_t at = out.size();
    out.resize(at + text.size() / 2);
    for (std::size_t i = 0; i < text.size(); i += 2) {
        const std::uint8_t high = kHexValues[static_cast<unsigned char>(text[i])];
        const std::uint8_t low = kHexValues[static_cast<unsigned char>(text[i + 1])];
        if (high == kNoDigit || low == kNoDigit) return false;
        out[at++] = static_cast<std::byte>(high << 4 | low);
    }
    return true;
}

std::optional<ValueColumn> as_hex(Values values) {
    ValueColumn column{.coding = ColumnCoding::hex};
    if (values[0].starts_with("\\x")) column.form = kHexPrefix;
    const std::size_t prefix = column.form == kHexPrefix ? 2 : 0;
    for (std::string_view each : values) {
        if (prefix > 0 && !each.starts_with("\\x")) return std::nullopt;
        if (!append_hex(column.bytes, each.substr(prefix))) return std::nullopt;
        append_varint(column.lengths, (each.size() - prefix) / 2);
    }
    if (column.bytes.size() < values.size() * kHexBytesOfValueMin) return std::nullopt;
    return column;
}

constexpr std::array<std::size_t, 5> kUuidGroups = {8, 4, 4, 4, 12};

std::optional<ValueColumn> as_uuids(Values values) {
    ValueColumn column{.coding = ColumnCoding::uuid};
    for (std::string_view each : values) {
        if (each.size() != 36) return std::nullopt;
        std::size_t at = 0;
        for (std::size_t group : kUuidGroups) {
            if (at > 0 && each[at - 1] != '-') return std::nullopt;
            if (!append_hex(column.bytes, each.substr(at, group))) return std::nullopt;
            at += group + 1;
        }
    }
    return column;
}

ValueColumn as_text_column(Values values) {
    ValueColumn column;
    for (std::string_view each : values) {
        append_varint(column.lengths, each.size());
        append(column.bytes, as_bytes(each));
    }
    return column;
}

std::byte* write_hex(std::byte* to, ByteSpan bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    for (std::byte each : bytes) {
        *to++ = static_cast<std::byte>(kDigits[static_cast<std::size_t>(each) >> 4]);
        *to++ = static_cast<std::byte>(kDigits[static_cast<std::size_t>(each) & 15]);
    }
    return to;
}

char* write_digits(char* to, std::int64_t value, int count) {
    for (int i = count - 1; i >= 0; --i, value /= 10)
        to[i] = static_cast<char>('0' + value % 10);
    return to + count;
}

// False for one outside of the years 1 to 9999, which no column of times has.
bool write_day(std::array<char, 10>& out, std::int64_t days) {
    using namespace std::chrono;
    constexpr std::int64_t kFirst = sys_days(year(1) / 1 / 1).time_since_epoch().count();
    constexpr std::int64_t kLast = sys_days(year(9999) / 12 / 31).time_since_epoch().count();
    if (days < kFirst || days > kLast) return false;
    const year_month_day date{sys_days(std::chrono::days(days))};
    char* at = write_digits(out.data(), static_cast<int>(date.year()), 4);
    *at++ = '-';
    at = write_digits(at, static_cast<unsigned>(date.month()), 2);
    *at++ = '-';
    write_digits(at, static_cast<unsigned>(date.day()), 2);
    return true;
}

char* write_time_of_day(char* at, std::int64_t micros) {
    const std::int64_t seconds = micros / 1'000'000;
    std::int64_t fraction = micros % 1'000'000;
    *at++ = ' ';
    at = write_digits(at, seconds / 3600, 2);
    *at++ = ':';
    at = write_digits(at, seconds / 60 % 60, 2);
    *at++ = ':';
    at = write_digits(at, seconds % 60, 2);
    if (fraction == 0) return at;
    *at++ = '.';
    int digits = 6;
    for (; fraction % 10 == 0; fraction /= 10)
        --digits;
    return write_digits(at, fraction, digits);
}

std::optional<std::size_t> give(MutableByteSpan out, std::string_view text) {
    if (text.size() > out.size()) return std::nullopt;
    std::memcpy(out.data(), text.data(), text.size());
    return text.size();
}

}  // namespace

ValueColumn encode_values(Values values) {
    if (values.empty()) return {};
    for (auto* coding : {as_numbers, as_times, as_uuids, as_hex})
        if (auto column = coding(values)) return std::move(*column);
    return as_text_column(values);
}

Result<ValueReader> ValueReader::open(std::uint8_t coding, std::uint8_t form, ByteSpan lengths,
                                      ByteSpan bytes) {
    ValueReader reader;
    reader.coding_ = static_cast<ColumnCoding>(coding);
    reader.form_ = form;
    reader.lengths_ = VarintReader(lengths);
    const std::uint8_t plain_form = form & static_cast<std::uint8_t>(~kDifferences);
    bool is_known = false;
    switch (reader.coding_) {
        case ColumnCoding::number:
            is_known = plain_form < kDigitsMax;
            break;
        case ColumnCoding::time:
            is_known = plain_form <= kWithZone;
            break;
        case ColumnCoding::hex:
            is_known = form <= kHexPrefix;
            break;
        case ColumnCoding::text:
        case ColumnCoding::uuid:
            is_known = form == 0;
    }
    if (!is_known) return fail(Errc::corrupt, "the values of a column are written in no known way");
    const bool of_integers =
        reader.coding_ == ColumnCoding::number || reader.coding_ == ColumnCoding::time;
    if (of_integers)
        reader.numbers_ = VarintReader(bytes);
    else
        reader.bytes_ = bytes;
    return reader;
}

SoughtValue::SoughtValue(std::string_view sought) : text(sought) {
    const std::size_t point = sought.find('.');
    if (point != std::string_view::npos) scale = sought.size() - point - 1;
    if (point == std::string_view::npos || scale > 0) number = number_of(sought, scale);
    has_hex_prefix = sought.starts_with("\\x");
    ByteBuffer bytes;
    if (append_hex(bytes, sought.substr(has_hex_prefix ? 2 : 0))) hex = std::move(bytes);
}

std::optional<bool> ValueReader::next_is(const SoughtValue& sought) {
    std::uint64_t value = 0;
    switch (coding_) {
        case ColumnCoding::number:
            if (!next_integer(value)) return std::nullopt;
            return sought.number && sought.scale == (form_ & kScaleMask) &&
                   static_cast<std::uint64_t>(*sought.number) == value;
        case ColumnCoding::text:
        case ColumnCoding::hex: {
            if (!lengths_.next(value) || value > bytes_.size()) return std::nullopt;
            const ByteSpan bytes = bytes_.first(value);
            bytes_ = bytes_.subspan(value);
            if (coding_ == ColumnCoding::text) return as_text(bytes) == sought.text;
            return sought.hex && sought.has_hex_prefix == (form_ == kHexPrefix) &&
                   std::ranges::equal(bytes, *sought.hex);
        }
        case ColumnCoding::time:
        case ColumnCoding::uuid: {
            std::array<std::byte, 64> room;
            const auto length = next(room);
            if (!length) return std::nullopt;
            return as_text(ByteSpan(room).first(*length)) == sought.text;
        }
    }
    return std::nullopt;
}

bool ValueReader::skip(std::size_t count) {
    std::uint64_t value = 0;
    std::uint64_t bytes = 16 * std::uint64_t{count};
    switch (coding_) {
        case ColumnCoding::number:
        case ColumnCoding::time:
            for (; count > 0; --count)
                if (!next_integer(value)) return false;
            return true;
        case ColumnCoding::text:
        case ColumnCoding::hex:
            bytes = 0;
            for (; count > 0; --count) {
                if (!lengths_.next(value) || value > bytes_.size() - bytes) return false;
                bytes += value;
            }
            break;
        case ColumnCoding::uuid:
            break;
    }
    if (bytes > bytes_.size()) return false;
    bytes_ = bytes_.subspan(bytes);
    return true;
}

std::optional<std::size_t> ValueReader::next(MutableByteSpan out) {
    switch (coding_) {
        case ColumnCoding::text:
            return next_text(out);
        case ColumnCoding::number:
            return next_number(out);
        case ColumnCoding::time:
            return next_time(out);
        case ColumnCoding::hex:
            return next_hex(out);
        case ColumnCoding::uuid:
            return next_uuid(out);
    }
    return std::nullopt;
}

std::optional<std::size_t> ValueReader::next_text(MutableByteSpan out) {
    std::uint64_t length = 0;
    if (!lengths_.next(length) || length > bytes_.size() || length > out.size())
        return std::nullopt;
    if (length > 0) std::memcpy(out.data(), bytes_.data(), length);
    bytes_ = bytes_.subspan(length);
    return length;
}

std::optional<std::size_t> ValueReader::next_hex(MutableByteSpan out) {
    const std::size_t prefix = form_ == kHexPrefix ? 2 : 0;
    std::uint64_t length = 0;
    if (!lengths_.next(length) || length > bytes_.size() || prefix + 2 * length > out.size())
        return std::nullopt;
    if (prefix > 0) std::memcpy(out.data(), "\\x", prefix);
    write_hex(out.data() + prefix, bytes_.first(length));
    bytes_ = bytes_.subspan(length);
    return prefix + 2 * length;
}

std::optional<std::size_t> ValueReader::next_uuid(MutableByteSpan out) {
    if (bytes_.size() < 16 || out.size() < 36) return std::nullopt;
    std::byte* at = out.data();
    for (std::size_t group : kUuidGroups) {
        if (at != out.data()) *at++ = std::byte{'-'};
        at = write_hex(at, bytes_.first(group / 2));
        bytes_ = bytes_.subspan(group / 2);
    }
    return 36;
}

bool ValueReader::next_integer(std::uint64_t& value) {
    if (!numbers_.next(value)) return false;
    value = unzigzag(value);
    if ((form_ & kDifferences) != 0) value += last_;
    last_ = value;
    return true;
}

std::optional<std::size_t> ValueReader::next_number(MutableByteSpan out) {
    std::uint64_t value = 0;
    if (!next_integer(value)) return std::nullopt;
    const std::size_t scale = form_ & kScaleMask;
    const bool is_negative = value >> 63 != 0;
    std::uint64_t magnitude = is_negative ? 0 - value : value;
    std::array<char, 24> text;
    char* at = text.data() + text.size();
    for (std::size_t digits = 0; digits <= scale || magnitude > 0; ++digits, magnitude /= 10) {
        if (scale > 0 && digits == scale) *--at = '.';
        *--at = static_cast<char>('0' + magnitude % 10);
    }
    if (is_negative) *--at = '-';
    return give(out, {at, text.data() + text.size()});
}

std::optional<std::size_t> ValueReader::next_time(MutableByteSpan out) {
    std::uint64_t value = 0;
    if (!next_integer(value)) return std::nullopt;
    const auto time = static_cast<std::int64_t>(value);
    const std::uint8_t form = form_ & static_cast<std::uint8_t>(~kDifferences);
    std::int64_t day = time;
    if (form != kDayOnly) {
        day = time / kDayMicros;
        if (time % kDayMicros < 0) --day;
    }
    if (day != day_ || day_text_[0] == 0) {
        if (!write_day(day_text_, day)) return std::nullopt;
        day_ = day;
    }
    std::array<char, 32> text;
    char* at = std::ranges::copy(day_text_, text.data()).out;
    if (form != kDayOnly) at = write_time_of_day(at, time - day * kDayMicros);
    if (form == kWithZone) at = std::ranges::copy(kZone, at).out;
    return give(out, {text.data(), at});
}

}  // namespace walvault
