#include "agent/target.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <optional>

#include "agent/time_zone.h"

namespace walvault::agent {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_all_digits(std::string_view text) {
    for (char c : text)
        if (!is_digit(c)) return false;
    return !text.empty();
}
std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ')
        text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ')
        text.remove_suffix(1);
    return text;
}

tl::unexpected<Error> not_a_time(std::string_view text, const std::string& why) {
    return fail(Errc::invalid_argument,
                "'" + std::string(text.substr(0, 80)) + "' is not a time; " + why,
                "write it as '2026-08-22 14:02:58+02', '14:02', '5m' or @EPOCH");
}

// Takes characters off the front of a time; `whole` is kept for messages.
class Scanner {
public:
    explicit Scanner(std::string_view text) : whole_(text), rest_(text) {}
    std::string_view whole() const { return whole_; }
    std::string_view rest() const { return rest_; }
    bool at_end() const { return rest_.empty(); }
    char peek() const { return rest_.empty() ? '\0' : rest_.front(); }
    bool take(char c) {
        if (peek() != c) return false;
        rest_.remove_prefix(1);
        return true;
    }
    void skip_blanks() {
        while (take(' ')) {
        }
    }
    bool take_word(std::string_view word) {
        if (rest_.substr(0, word.size()) != word) return false;
        if (rest_.size() > word.size() && is_letter(rest_[word.size()])) return false;
        rest_.remove_prefix(word.size());
        return true;
    }
    std::string_view digits() {
        std::size_t count = 0;
        while (count < rest_.size() && is_digit(rest_[count]))
            ++count;
        std::string_view found = rest_.substr(0, count);
        rest_.remove_prefix(count);
        return found;
    }
    // Exactly `count` digits, or nothing and no step forward.
    std::optional<unsigned> number(std::size_t count) {
        if (rest_.size() < count || !is_all_digits(rest_.substr(0, count))) return {};
        unsigned value = 0;
        for (char c : rest_.substr(0, count))
            value = value * 10 + static_cast<unsigned>(c - '0');
        rest_.remove_prefix(count);
        return value;
    }
    tl::unexpected<Error> error(const std::string& why) const { return not_a_time(whole_, why); }

private:
    std::string_view whole_;
    std::string_view rest_;
};

// After the '.': one to six digits, microseconds.
Result<Micros> parse_fraction(Scanner& scan) {
    std::string_view digits = scan.digits();
    if (digits.empty()) return scan.error("digits are missing after the point");
    if (digits.size() > 6)
        return scan.error("PostgreSQL's times have at most 6 digits after the point, not " +
                          std::to_string(digits.size()));
    std::int64_t micros = 0;
    for (std::size_t i = 0; i < 6; ++i)
        micros = micros * 10 + (i < digits.size() ? digits[i] - '0' : 0);
    return Micros(micros);
}

// HH:MM[:SS[.ffffff]]
Result<Micros> parse_clock(Scanner& scan) {
    auto hours = scan.number(2);
    if (!hours || !scan.take(':')) return scan.error("hours and minutes are written as 14:02");
    auto minutes = scan.number(2);
    if (!minutes) return scan.error("hours and minutes are written as 14:02");
    unsigned seconds = 0;
    Micros fraction{0};
    if (scan.take(':')) {
        auto parsed = scan.number(2);
        if (!parsed) return scan.error("seconds have two digits");
        seconds = *parsed;
        if (scan.take('.')) {
            WV_TRY(fraction, parse_fraction(scan));
        }
    }
    if (*hours > 23) return scan.error("hours run to 23");
    if (*minutes > 59) return scan.error("minutes run to 59");
    if (seconds > 59) return scan.error("seconds run to 59");
    return std::chrono::hours(*hours) + std::chrono::minutes(*minutes) +
           std::chrono::seconds(seconds) + fraction;
}

// YYYY-MM-DD
Result<date::local_days> parse_day(Scanner& scan) {
    auto year = scan.number(4);
    if (!year || !scan.take('-')) return scan.error("a date is written as 2026-08-22");
    auto month = scan.number(2);
    if (!month || !scan.take('-')) return scan.error("a date is written as 2026-08-22");
    auto day = scan.number(2);
    if (!day || is_digit(scan.peek())) return scan.error("a date is written as 2026-08-22");
    date::year_month_day found{date::year(static_cast<int>(*year)), date::month(*month),
                               date::day(*day)};
    if (!found.ok()) return scan.error("there is no such day");
    return date::local_days(found);
}

// Z, +02, +02:00, +0200: what is to be subtracted from the local time.
Result<std::chrono::minutes> parse_offset(Scanner& scan) {
    const bool west = scan.peek() == '-';
    if (!scan.take('-') && !scan.take('+')) return scan.error("an offset is written as +02:00");
    auto hours = scan.number(2);
    if (!hours) return scan.error("an offset is written as +02:00");
    unsigned minutes = 0;
    const bool colon = scan.take(':');
    if (colon || is_digit(scan.peek())) {
        auto parsed = scan.number(2);
        if (!parsed) return scan.error("an offset is written as +02:00");
        minutes = *parsed;
    }
    if (*hours > 15 || minutes > 59) return scan.error("offsets run from -15:59 to +15:59");
    std::chrono::minutes offset = std::chrono::hours(*hours) + std::chrono::minutes(minutes);
    return west ? -offset : offset;
}

using LocalMicros = std::chrono::time_point<date::local_t, Micros>;

std::string offset_text(std::chrono::seconds offset) {
    const auto minutes = std::chrono::duration_cast<std::chrono::minutes>(offset).count();
    const long long size = minutes < 0 ? -minutes : minutes;
    char text[16];
    std::snprintf(text, sizeof text, "%c%02lld:%02lld", minutes < 0 ? '-' : '+', size / 60 % 100,
                  size % 60);
    return text;
}

std::string candidate(LocalMicros local, const date::sys_info& info) {
    WallTime at(local.time_since_epoch() - std::chrono::duration_cast<Micros>(info.offset));
    return date::format("%F %T", local) + offset_text(info.offset) + " (" + info.abbrev + ", " +
           to_utc_text(at) + ")";
}

// The instants just around a local time that the clock jumped over.
tl::unexpected<Error> never_happened(std::string_view whole, const date::local_info& info,
                                     const std::string& zone) {
    const auto jump = std::chrono::time_point_cast<Micros>(info.first.end);
    auto edge = [&](const date::sys_info& side) {
        LocalMicros local(jump.time_since_epoch() +
                          std::chrono::duration_cast<Micros>(side.offset));
        return date::format("%F %T", local) + offset_text(side.offset) + " (" + side.abbrev + ")";
    };
    return fail(Errc::outside_window, "'" + std::string(whole) + "' never happened in " + zone,
                "the clock went from " + edge(info.first) + " to " + edge(info.second) + ", both " +
                    to_utc_text(jump) + "; give the offset");
}

WallTime at_offset(LocalMicros local, std::chrono::seconds offset) {
    return WallTime(local.time_since_epoch() - std::chrono::duration_cast<Micros>(offset));
}

Result<WallTime> local_to_instant(std::string_view whole, LocalMicros local,
                                  const std::string& zone_name) {
    if (is_utc(zone_name)) return at_offset(local, std::chrono::seconds(0));
    const date::time_zone* zone = find_zone(zone_name);
    if (zone == nullptr)
        return not_a_time(whole,
                          "'" + zone_name.substr(0, 40) + "' is not a time zone this system knows");
    const date::local_info info = zone->get_info(local);
    if (info.result == date::local_info::unique) return at_offset(local, info.first.offset);
    if (info.result == date::local_info::nonexistent) return never_happened(whole, info, zone_name);
    return fail(Errc::ambiguous, "'" + std::string(whole) + "' happened twice in " + zone_name,
                "give the offset: " + candidate(local, info.first) + " or " +
                    candidate(local, info.second));
}

// "CEST": taken only if it is what the clocks of `zone_name` showed then.
Result<WallTime> abbreviation_to_instant(std::string_view whole, LocalMicros local,
                                         const std::string& abbreviation,
                                         const std::string& zone_name) {
    const date::time_zone* zone = find_zone(zone_name);
    if (zone == nullptr)
        return not_a_time(whole, "'" + zone_name + "' is not a time zone this system knows");
    const date::local_info info = zone->get_info(local);
    if (info.result == date::local_info::nonexistent) return never_happened(whole, info, zone_name);
    if (info.first.abbrev == abbreviation) return at_offset(local, info.first.offset);
    if (info.result == date::local_info::ambiguous && info.second.abbrev == abbreviation)
        return at_offset(local, info.second.offset);
    return not_a_time(whole, abbreviation.substr(0, 20) + " was not in force in " + zone_name +
                                 " then, " + info.first.abbrev +
                                 " was; give an offset such as +02:00 or a zone such "
                                 "as Europe/Berlin");
}

// What follows date and clock: nothing, an offset, a zone's name or an abbreviation.
Result<WallTime> parse_zone(Scanner& scan, LocalMicros local, const std::string& context_zone) {
    scan.skip_blanks();
    if (scan.at_end()) return local_to_instant(scan.whole(), local, context_zone);
    if (scan.peek() == '+' || scan.peek() == '-') {
        WV_TRY(std::chrono::minutes offset, parse_offset(scan));
        if (!scan.at_end())
            return scan.error("'" + std::string(scan.rest()) + "' after it is not understood");
        return at_offset(local, offset);
    }
    const std::string zone(scan.rest());
    for (char c : zone)
        if (!is_letter(c) && !is_digit(c) && c != '/' && c != '_' && c != '-' && c != '+')
            return scan.error("'" + zone + "' after it is not understood");
    if (zone == "Z" || zone == "z" || zone == "UTC" || zone == "GMT" || zone == "UT")
        return at_offset(local, std::chrono::seconds(0));
    if (zone.find('/') != std::string::npos) return local_to_instant(scan.whole(), local, zone);
    return abbreviation_to_instant(scan.whole(), local, zone, context_zone);
}

// The day it is (or was, `days_ago`) in the zone of the context.
Result<date::local_days> day_in_zone(std::string_view whole, const TimeContext& context,
                                     int days_ago) {
    if (is_utc(context.zone)) {
        const auto today = date::floor<date::days>(context.now);
        return date::local_days(today.time_since_epoch()) - date::days(days_ago);
    }
    const date::time_zone* zone = find_zone(context.zone);
    if (zone == nullptr)
        return not_a_time(whole, "'" + context.zone + "' is not a time zone this system knows");
    return date::floor<date::days>(zone->to_local(context.now)) - date::days(days_ago);
}

Result<WallTime> parse_epoch(std::string_view text) {
    Scanner scan(text);
    scan.take('@');
    std::string_view digits = scan.digits();
    if (digits.empty() || digits.size() > 11)
        return scan.error("an epoch is written as @1787391791.25");
    std::int64_t seconds = 0;
    for (char c : digits)
        seconds = seconds * 10 + (c - '0');
    Micros fraction{0};
    if (scan.take('.')) {
        WV_TRY(fraction, parse_fraction(scan));
    }
    if (!scan.at_end()) return scan.error("an epoch is written as @1787391791.25");
    return WallTime(std::chrono::seconds(seconds) + fraction);
}

std::optional<Micros> unit_of(std::string_view unit) {
    using namespace std::chrono_literals;
    struct Unit {
        std::string_view names;  // separated and enclosed by blanks
        Micros length;
    };
    static constexpr std::array<Unit, 7> kUnits{{{" us ", 1us},
                                                 {" ms ", 1ms},
                                                 {" s sec secs second seconds ", 1s},
                                                 {" m min mins minute minutes ", 1min},
                                                 {" h hour hours ", 1h},
                                                 {" d day days ", 24h},
                                                 {" w week weeks ", 7 * 24h}}};
    const std::string wanted = " " + std::string(unit) + " ";
    for (const Unit& candidate_unit : kUnits)
        if (candidate_unit.names.find(wanted) != std::string_view::npos)
            return candidate_unit.length;
    return {};
}

// 5m, 1h30m, -5m, "5 minutes ago". Nothing if the text does not have that form at all.
Result<std::optional<WallTime>> parse_relative(std::string_view text, const TimeContext& context) {
    Scanner scan(text);
    scan.take('-');
    if (!is_digit(scan.peek())) return std::nullopt;
    Micros back{0};
    while (is_digit(scan.peek())) {
        std::string_view digits = scan.digits();
        scan.skip_blanks();
        std::size_t length = 0;
        while (length < scan.rest().size() && is_letter(scan.rest()[length]))
            ++length;
        const std::string_view unit = scan.rest().substr(0, length);
        if (unit.empty()) return std::nullopt;
        const auto unit_length = unit_of(unit);
        if (!unit_length) return std::nullopt;
        if (digits.size() > 9) return scan.error("the number is too large");
        std::int64_t count = 0;
        for (char c : digits)
            count = count * 10 + (c - '0');
        if (count > std::chrono::hours(24 * 36525) / *unit_length)
            return scan.error("that is more than a hundred years ago");
        back += count * *unit_length;
        scan.take_word(unit);
        scan.skip_blanks();
    }
    if (!scan.at_end() && scan.rest() != "ago") return std::nullopt;
    return context.now - back;
}

bool starts_like_clock(std::string_view text) {
    return text.size() >= 5 && is_digit(text[0]) && is_digit(text[1]) && text[2] == ':';
}
bool starts_like_date(std::string_view text) {
    return text.size() >= 8 && is_all_digits(text.substr(0, 4)) && text[4] == '-';
}

Result<WallTime> parse_clock_of_day(std::string_view text, const TimeContext& context) {
    Scanner scan(text);
    int days_ago = 0;
    if (scan.take_word("yesterday"))
        days_ago = 1;
    else
        scan.take_word("today");
    scan.skip_blanks();
    WV_TRY(date::local_days day, day_in_zone(text, context, days_ago));
    WV_TRY(Micros clock, parse_clock(scan));
    return parse_zone(scan, LocalMicros(day) + clock, context.zone);
}

Result<WallTime> parse_date_and_clock(std::string_view text, const TimeContext& context) {
    Scanner scan(text);
    WV_TRY(date::local_days day, parse_day(scan));
    Micros clock{0};
    if (scan.take('T') || scan.take('t')) {
        WV_TRY(clock, parse_clock(scan));
    } else if (scan.take(' ')) {
        scan.skip_blanks();
        if (is_digit(scan.peek())) {
            WV_TRY(clock, parse_clock(scan));
        }
    } else if (!scan.at_end()) {
        return scan.error("a date is followed by a blank or T and the time");
    }
    return parse_zone(scan, LocalMicros(day) + clock, context.zone);
}

bool looks_like_lsn(std::string_view text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos || slash == 0 || slash > 8) return false;
    for (char c : text)
        if (!is_digit(c) && c != '/' && !((c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f')))
            return false;
    return true;
}

Result<Xid> parse_xid(std::string_view digits) {
    Xid xid = 0;
    auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), xid);
    if (code != std::errc{} || end != digits.data() + digits.size() || xid < 3)
        return fail(Errc::invalid_argument,
                    "'" + std::string(digits.substr(0, 40)) +
                        "' is not a transaction id; they run from 3 to 4294967295",
                    "use the 32-bit xid, as in the server log and `walvault log`");
    return xid;
}

Result<Target> parse_named(std::string_view text, Target target) {
    auto value_after = [&](std::string_view prefix) -> std::optional<std::string_view> {
        if (text.substr(0, prefix.size()) != prefix) return {};
        return text.substr(prefix.size());
    };
    if (auto lsn = value_after("lsn:")) {
        target.kind = Target::Kind::lsn;
        WV_TRY(target.lsn, parse_lsn(*lsn));
    } else if (auto xid = value_after("xid:")) {
        target.kind = Target::Kind::xid;
        WV_TRY(target.xid, parse_xid(*xid));
    } else if (auto name = value_after("name:")) {
        target.kind = Target::Kind::name;
        target.name = std::string(*name);
    } else if (auto backup = value_after("backup:")) {
        target.kind = Target::Kind::backup;
        target.name = std::string(*backup);
    }
    const bool needs_name =
        target.kind == Target::Kind::name || target.kind == Target::Kind::backup;
    if (needs_name && (target.name.empty() || target.name.size() > 63))
        return fail(Errc::invalid_argument, "'" + std::string(text.substr(0, 80)) +
                                                "' needs a name of 1 to 63 bytes after the colon");
    return target;
}

Result<Target> parse_bare(std::string_view text, Target target, const TimeContext& context) {
    if (text == "latest" || text == "earliest" || text == "immediate") {
        target.kind = text == "latest"     ? Target::Kind::latest
                      : text == "earliest" ? Target::Kind::earliest
                                           : Target::Kind::immediate;
        return target;
    }
    if (is_all_digits(text))
        return fail(Errc::invalid_argument,
                    "'" + std::string(text.substr(0, 40)) +
                        "' could be a transaction, an epoch or a minute",
                    "say xid:" + std::string(text.substr(0, 40)) + " or @" +
                        std::string(text.substr(0, 40)));
    if (looks_like_lsn(text)) {
        target.kind = Target::Kind::lsn;
        WV_TRY(target.lsn, parse_lsn(text));
        return target;
    }
    target.kind = Target::Kind::time;
    WV_TRY(target.at, parse_time(text, context));
    return target;
}

// --before a set of bytes that has no "just before".
Result<> require_meaning(const Target& target) {
    const bool has_before = target.kind == Target::Kind::time || target.kind == Target::Kind::lsn ||
                            target.kind == Target::Kind::xid || target.kind == Target::Kind::name;
    if (!target.before || has_before) return {};
    return fail(Errc::invalid_argument,
                "--before takes a time, lsn:, xid: or name:, not '" + target.text + "'",
                "say --to " + target.text);
}

}  // namespace

Result<WallTime> parse_time(std::string_view given, const TimeContext& context) {
    const std::string_view text = trim(given);
    if (text.empty()) return not_a_time(given, "it is empty");
    if (text.size() > 100) return not_a_time(given, "it is longer than any time");
    if (text.front() == '@') return parse_epoch(text);
    if (starts_like_clock(text) || text.substr(0, 5) == "today" || text.substr(0, 9) == "yesterday")
        return parse_clock_of_day(text, context);
    if (starts_like_date(text)) return parse_date_and_clock(text, context);
    WV_TRY(std::optional<WallTime> relative, parse_relative(text, context));
    if (relative) return *relative;
    return not_a_time(text, "nor any other target");
}

Result<Target> parse_target(std::string_view given, bool before, const TimeContext& context) {
    const std::string_view text = trim(given);
    if (text.empty())
        return fail(Errc::invalid_argument, "the target is empty",
                    "say --to latest or --to '14:02'");
    Target target;
    target.before = before;
    target.text = std::string(text.substr(0, 200));
    if (text.substr(0, 5) == "time:") {
        target.kind = Target::Kind::time;
        WV_TRY(target.at, parse_time(text.substr(5), context));
        return target;
    }
    const bool named = text.substr(0, 4) == "lsn:" || text.substr(0, 4) == "xid:" ||
                       text.substr(0, 5) == "name:" || text.substr(0, 7) == "backup:";
    if (named) {
        WV_TRY(target, parse_named(text, std::move(target)));
    } else {
        WV_TRY(target, parse_bare(text, std::move(target), context));
    }
    WV_CHECK(require_meaning(target));
    return target;
}

}  // namespace walvault::agent
