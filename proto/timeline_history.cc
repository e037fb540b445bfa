#include "proto/timeline_history.h"

#include <charconv>
#include <string>

#include "base/bytes.h"

namespace walvault {
namespace {

constexpr std::size_t kHistoryBytesMax = 64_KiB;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

std::string_view without_leading_blanks(std::string_view text) {
    while (!text.empty() && is_blank(text.front()))
        text.remove_prefix(1);
    return text;
}

std::string_view take_word(std::string_view& text) {
    text = without_leading_blanks(text);
    std::size_t length = 0;
    while (length < text.size() && !is_blank(text[length]))
        ++length;
    std::string_view word = text.substr(0, length);
    text.remove_prefix(length);
    return word;
}

// "1\t0/30000A0\tno recovery target specified": timeline, switch position, free text.
Result<TimelineSwitch> parse_line(std::string_view line, std::size_t line_number) {
    std::string_view timeline_text = take_word(line);
    std::string_view lsn_text = take_word(line);
    TimelineSwitch parsed;
    auto [end, error] = std::from_chars(
        timeline_text.data(), timeline_text.data() + timeline_text.size(), parsed.timeline);
    if (error != std::errc{} || end != timeline_text.data() + timeline_text.size())
        return fail(Errc::corrupt, "line " + std::to_string(line_number) +
                                       " of the timeline history does not begin with a timeline");
    auto lsn = parse_lsn(lsn_text);
    if (!lsn)
        return fail(Errc::corrupt, "line " + std::to_string(line_number) +
                                       " of the timeline history has no switch position");
    parsed.end_lsn = *lsn;
    return parsed;
}

}  // namespace

Result<std::vector<TimelineSwitch>> parse_timeline_history(std::string_view text, TimelineId of) {
    if (text.size() > kHistoryBytesMax)
        return fail(Errc::corrupt, "a timeline history has " + std::to_string(text.size()) +
                                       " bytes, more than the " + std::to_string(kHistoryBytesMax) +
                                       " allowed");
    std::vector<TimelineSwitch> switches;
    std::size_t line_number = 0;
    while (!text.empty()) {
        std::size_t newline = text.find('\n');
        std::string_view line = without_leading_blanks(text.substr(0, newline));
        text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
        ++line_number;
        if (line.empty() || line.front() == '#') continue;
        WV_TRY(TimelineSwitch next, parse_line(line, line_number));
        const TimelineId last_timeline = switches.empty() ? 0 : switches.back().timeline;
        if (next.timeline <= last_timeline)
            return fail(Errc::corrupt, "timeline " + std::to_string(next.timeline) +
                                           " follows timeline " + std::to_string(last_timeline) +
                                           " in a timeline history");
        if (!switches.empty() && next.end_lsn < switches.back().end_lsn)
            return fail(Errc::corrupt, "timeline " + std::to_string(next.timeline) + " ends at " +
                                           to_string(next.end_lsn) +
                                           ", before its ancestor's end at " +
                                           to_string(switches.back().end_lsn));
        switches.push_back(next);
    }
    if (!switches.empty() && switches.back().timeline >= of)
        return fail(Errc::corrupt,
                    "the history of timeline " + std::to_string(of) + " names timeline " +
                        std::to_string(switches.back().timeline) + " as its ancestor");
    return switches;
}

}  // namespace walvault
