#include "proto/wal_file_name.h"

#include <bit>

#include "base/invariant.h"

namespace walvault {
namespace {

constexpr std::uint64_t kSegmentBytesMin = 1 << 20;
constexpr std::uint64_t kSegmentBytesMax = 1 << 30;

bool is_segment_size(std::uint64_t bytes) {
    return std::has_single_bit(bytes) && bytes >= kSegmentBytesMin && bytes <= kSegmentBytesMax;
}

// Exactly eight upper-case digits: PostgreSQL writes no others, and two names for one file are one
// too many.
bool parse_eight(std::string_view text, std::uint32_t& value) {
    value = 0;
    if (text.size() != 8) return false;
    for (char digit : text) {
        if (digit >= '0' && digit <= '9')
            value = value << 4 | static_cast<std::uint32_t>(digit - '0');
        else if (digit >= 'A' && digit <= 'F')
            value = value << 4 | static_cast<std::uint32_t>(digit - 'A' + 10);
        else
            return false;
    }
    return true;
}

void append_eight(std::string& out, std::uint32_t value) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    for (int shift = 28; shift >= 0; shift -= 4)
        out += kDigits[(value >> shift) & 15];
}

Result<WalFileName> not_a_wal_file(std::string_view name) {
    return fail(Errc::invalid_argument,
                "\"" + std::string(name.substr(0, 64)) + "\" is not the name of a WAL file");
}

}  // namespace

Result<WalFileName> parse_wal_file_name(std::string_view name, std::uint64_t segment_bytes) {
    if (!is_segment_size(segment_bytes))
        return fail(Errc::invalid_argument,
                    "a WAL segment cannot have " + std::to_string(segment_bytes) +
                        " bytes: a power of two from 1 MiB to 1 GiB is needed");
    WalFileName parsed;
    if (name.size() < 8 || !parse_eight(name.substr(0, 8), parsed.timeline) || parsed.timeline == 0)
        return not_a_wal_file(name);
    if (name.substr(8) == ".history") {
        parsed.kind = WalFileName::Kind::history;
        return parsed;
    }
    std::uint32_t high = 0;
    std::uint32_t low = 0;
    if (name.size() < 24 || !parse_eight(name.substr(8, 8), high) ||
        !parse_eight(name.substr(16, 8), low))
        return not_a_wal_file(name);
    const std::uint64_t segments_per_high = (std::uint64_t{1} << 32) / segment_bytes;
    if (low >= segments_per_high) return not_a_wal_file(name);
    parsed.segment_number = high * segments_per_high + low;

    std::string_view suffix = name.substr(24);
    std::uint32_t offset = 0;
    if (suffix.empty()) {
        parsed.kind = WalFileName::Kind::segment;
    } else if (suffix == ".partial") {
        parsed.kind = WalFileName::Kind::partial;
    } else if (suffix.size() == 16 && suffix[0] == '.' && suffix.substr(9) == ".backup" &&
               parse_eight(suffix.substr(1, 8), offset) && offset < segment_bytes) {
        parsed.kind = WalFileName::Kind::backup_label;
    } else {
        return not_a_wal_file(name);
    }
    return parsed;
}

std::string segment_file_name(TimelineId timeline, std::uint64_t segment_number,
                              std::uint64_t segment_bytes) {
    WV_ASSERT(is_segment_size(segment_bytes));
    const std::uint64_t segments_per_high = (std::uint64_t{1} << 32) / segment_bytes;
    std::string name;
    append_eight(name, timeline);
    append_eight(name, static_cast<std::uint32_t>(segment_number / segments_per_high));
    append_eight(name, static_cast<std::uint32_t>(segment_number % segments_per_high));
    return name;
}

std::string history_file_name(TimelineId timeline) {
    std::string name;
    append_eight(name, timeline);
    return name + ".history";
}

}  // namespace walvault
