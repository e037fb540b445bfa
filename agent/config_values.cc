#include "agent/config_values.h"

#include <fmt/format.h>

#include <charconv>

#include "agent/config.h"
#include "agent/render.h"

namespace walvault::agent {

using std::chrono::milliseconds;

tl::unexpected<Error> wrong_value(std::string message, std::string hint) {
    return fail(Errc::invalid_argument, std::move(message), std::move(hint));
}

Result<int> parse_integer(const std::string& text, int least, int most) {
    int number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number < least || number > most)
        return wrong_value(
            fmt::format("\"{}\" is not a whole number from {} to {}", text, least, most));
    return number;
}

Result<milliseconds> duration_between(const std::string& text, milliseconds least,
                                      milliseconds most) {
    WV_TRY(milliseconds value, parse_duration(text));
    if (value < least || value > most)
        return wrong_value(fmt::format("\"{}\" is not between {} and {}", text,
                                       format_duration(least), format_duration(most)));
    return value;
}

Result<std::uint64_t> size_between(const std::string& text, std::uint64_t least,
                                   std::uint64_t most) {
    WV_TRY(std::uint64_t value, parse_size(text));
    if (value < least || value > most)
        return wrong_value(fmt::format("\"{}\" is not between {} and {}", text, format_size(least),
                                       format_size(most)));
    return value;
}

}  // namespace walvault::agent
