#include "proto/lsn.h"

#include <charconv>

namespace walvault {
namespace {

void append_upper_hex(std::string& out, std::uint32_t value) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    bool started = false;
    for (int shift = 28; shift >= 0; shift -= 4) {
        unsigned digit = (value >> shift) & 15;
        started = started || digit != 0 || shift == 0;
        if (started) out += kDigits[digit];
    }
}

bool parse_half(std::string_view text, std::uint32_t& value) {
    if (text.empty() || text.size() > 8) return false;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::string to_string(Lsn lsn) {
    std::string text;
    append_upper_hex(text, static_cast<std::uint32_t>(lsn.value >> 32));
    text += '/';
    append_upper_hex(text, static_cast<std::uint32_t>(lsn.value));
    return text;
}

Result<Lsn> parse_lsn(std::string_view text) {
    std::size_t slash = text.find('/');
    std::uint32_t high = 0;
    std::uint32_t low = 0;
    if (slash == std::string_view::npos || !parse_half(text.substr(0, slash), high) ||
        !parse_half(text.substr(slash + 1), low))
        return fail(Errc::invalid_argument,
                    "\"" + std::string(text.substr(0, 64)) + "\" is not an LSN",
                    "write it as PostgreSQL does: two hexadecimal numbers, as in 16/B374D848");
    return Lsn{std::uint64_t{high} << 32 | low};
}

}  // namespace walvault
