#include "agent/render.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "agent/time_zone.h"
#include "base/invariant.h"

namespace walvault::agent {
namespace {

constexpr std::array<std::string_view, 6> kSizeUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

std::string three_digits(double value) {
    if (value < 9.995) return fmt::format("{:.2f}", value);
    if (value < 99.95) return fmt::format("{:.1f}", value);
    return fmt::format("{:.0f}", value);
}

// "HH:MM:SS" plus `digits` of the fraction.
std::string clock_text(std::chrono::microseconds of_day, int digits) {
    auto whole = std::chrono::duration_cast<std::chrono::seconds>(of_day).count();
    auto micros = of_day.count() % 1'000'000;
    std::string text = fmt::format("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
    if (digits <= 0) return text;
    return text + '.' +
           fmt::format("{:06}", micros).substr(0, static_cast<std::size_t>(std::min(digits, 6)));
}

template <class Json>
void print_json(const Globals& globals, const Json& answer) {
    const std::string text = answer.dump(globals.output == Output::json ? 2 : -1, ' ', false,
                                         Json::error_handler_t::replace) +
                             '\n';
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

template <class Days>
std::string date_text(Days days) {
    date::year_month_day day(days);
    return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(day.year()),
                       static_cast<unsigned>(day.month()), static_cast<unsigned>(day.day()));
}

// Length of the UTF-8 sequence at `text[at]`, or 0 if it is not one.
std::size_t sequence_length(std::string_view text, std::size_t at) {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    unsigned char lead = byte(at);
    std::size_t length = lead < 0x80                   ? 1
                         : lead >= 0xC2 && lead < 0xE0 ? 2
                         : lead >= 0xE0 && lead < 0xF0 ? 3
                         : lead >= 0xF0 && lead < 0xF5 ? 4
                                                       : 0;
    if (length == 0 || at + length > text.size()) return 0;
    for (std::size_t i = 1; i < length; ++i)
        if ((byte(at + i) & 0xC0) != 0x80) return 0;
    // Overlong forms and surrogates.
    if (lead == 0xE0 && byte(at + 1) < 0xA0) return 0;
    if (lead == 0xED && byte(at + 1) >= 0xA0) return 0;
    if (lead == 0xF0 && byte(at + 1) < 0x90) return 0;
    if (lead == 0xF4 && byte(at + 1) >= 0x90) return 0;
    return length;
}

}  // namespace

std::string format_size(std::uint64_t bytes) {
    std::size_t unit = 0;
    double value = static_cast<double>(bytes);
    while (value >= 999.5 && unit + 1 < kSizeUnits.size()) {
        value /= 1024;
        ++unit;
    }
    bool whole = unit == 0 || bytes % (1ull << (10 * unit)) == 0;
    return (whole ? fmt::format("{:.0f}", value) : three_digits(value)) + ' ' +
           std::string(kSizeUnits[unit]);
}

std::string format_rate(double bytes_per_second) {
    double bounded = std::isfinite(bytes_per_second) ? std::clamp(bytes_per_second, 0.0, 1e18) : 0;
    return format_size(static_cast<std::uint64_t>(bounded)) + "/s";
}

std::string format_count(std::uint64_t count) {
    std::string text = std::to_string(count);
    for (std::size_t at = text.size(); at > 3;) {
        at -= 3;
        text.insert(at, 1, ' ');
    }
    return text;
}

std::string format_duration(std::chrono::microseconds duration) {
    if (duration.count() < 0) {
        auto most = std::chrono::microseconds::max();
        auto positive = duration == std::chrono::microseconds::min() ? most : -duration;
        return '-' + format_duration(positive);
    }
    std::int64_t micros = duration.count();
    std::int64_t seconds = micros / 1'000'000;
    if (micros == 0) return "0 s";
    if (micros < 1'000) return fmt::format("0.{} ms", micros / 100);
    if (micros < 100'000) return fmt::format("{} ms", micros / 1'000);
    if (seconds < 10) return fmt::format("{}.{} s", seconds, micros % 1'000'000 / 100'000);
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3'600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
    if (seconds < 86'400) return fmt::format("{} h {} min", seconds / 3'600, seconds / 60 % 60);
    return fmt::format("{} d {} h", seconds / 86'400, seconds / 3'600 % 24);
}

std::string format_percent(std::uint64_t done, std::uint64_t total) {
    if (total == 0) return "0 %";
    double ratio = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
    int percent = done >= total ? 100 : std::min(99, static_cast<int>(ratio * 100));
    return fmt::format("{} %", percent);
}

bool is_time_zone(const std::string& zone) { return is_utc(zone) || find_zone(zone) != nullptr; }

std::string display_zone(const std::string& configured) {
    if (is_time_zone(configured)) return configured;
    if (const char* from_environment = std::getenv("TZ")) {
        std::string name = from_environment;
        if (!name.empty() && name.front() == ':') name.erase(0, 1);
        if (is_time_zone(name)) return name;
    }
    return system_zone();
}

std::string format_local(WallTime at, const std::string& zone, int digits) {
    WallTime shifted = at;
    // Zones without letters of their own are named by their offset ("+03") in the database.
    std::string abbreviation = "UTC";
    if (!is_utc(zone)) {
        const date::time_zone* found = find_zone(zone);
        if (found == nullptr) return format_utc(at, digits);
        date::sys_info info = found->get_info(std::chrono::floor<std::chrono::seconds>(at));
        shifted += info.offset;
        abbreviation = info.abbrev;
    }
    auto days = std::chrono::floor<date::days>(shifted);
    return date_text(days) + ' ' + clock_text(shifted - days, digits) + ' ' + abbreviation;
}

std::string format_utc(WallTime at, int digits) {
    auto days = std::chrono::floor<date::days>(at);
    return date_text(days) + 'T' + clock_text(at - days, digits) + 'Z';
}

std::string format_both(WallTime at, const std::string& zone, int digits) {
    return format_local(at, zone, digits) + "   " + format_utc(at, digits);
}

void print_answer(const Globals& globals, const nlohmann::json& answer) {
    print_json(globals, answer);
}

void print_answer(const Globals& globals, const nlohmann::ordered_json& answer) {
    print_json(globals, answer);
}

std::size_t control_length(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
    };
    const int lead = byte(0);
    if (lead < 0x20 || lead == 0x7F) return 1;
    if (lead == 0xC2) return byte(1) >= 0x80 && byte(1) < 0xA0 ? 2 : 0;
    if (lead != 0xE2) return 0;
    const int last = byte(2);
    const bool is_80 =
        byte(1) == 0x80 && (last == 0x8E || last == 0x8F || (last >= 0xA8 && last <= 0xAE));
    const bool is_81 = byte(1) == 0x81 && last >= 0xA6 && last <= 0xA9;
    return is_80 || is_81 ? 3 : 0;
}

std::string printable(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t length = sequence_length(text, at);
        if (const std::size_t escaped = length == 0 ? 1 : control_length(text, at); escaped > 0) {
            for (char c : text.substr(at, escaped))
                out += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
            at += escaped;
            continue;
        }
        out += text.substr(at, length);
        at += length;
    }
    return out;
}

std::size_t display_width(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
}

Table::Table(std::vector<std::string> headers, std::vector<Align> aligns)
    : headers_(std::move(headers)), aligns_(std::move(aligns)) {
    aligns_.resize(headers_.size(), Align::left);
}

void Table::add_row(std::vector<std::string> cells) {
    WV_ASSERT(cells.size() <= headers_.size());
    cells.resize(headers_.size());
    rows_.push_back(std::move(cells));
}

std::string Table::text() const {
    std::vector<std::size_t> widths(headers_.size());
    auto widen = [&](const std::vector<std::string>& row) {
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], display_width(row[i]));
    };
    widen(headers_);
    for (const auto& row : rows_)
        widen(row);

    std::string out;
    auto put = [&](const std::vector<std::string>& row) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            std::string blanks(widths[i] - display_width(row[i]), ' ');
            if (i > 0) line += "  ";
            line += aligns_[i] == Align::right ? blanks + row[i] : row[i] + blanks;
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + '\n';
    };
    put(headers_);
    for (const auto& row : rows_)
        put(row);
    return out;
}

Style Style::of(const Globals& globals, int file_descriptor) {
    if (globals.color == ColorMode::always) return Style(true);
    if (globals.color == ColorMode::never) return Style(false);
    auto set = [](const char* name) {
        const char* value = std::getenv(name);
        return value != nullptr && *value != '\0';
    };
    if (set("NO_COLOR")) return Style(false);
    const char* force = std::getenv("CLICOLOR_FORCE");
    if (force != nullptr && std::string_view(force) != "0" && *force != '\0') return Style(true);
    const char* terminal = std::getenv("TERM");
    if (terminal == nullptr || std::string_view(terminal) == "dumb") return Style(false);
    return Style(isatty(file_descriptor) == 1);
}

std::string Style::paint(std::string_view code, std::string_view text) const {
    if (!colored_ || text.empty()) return std::string(text);
    return fmt::format("\033[{}m{}\033[0m", code, text);
}

}  // namespace walvault::agent
