// Rendering for people: sizes, durations, local time beside UTC, tables, colour.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "agent/verbs.h"
#include "base/clock.h"

namespace walvault::agent {

// "0 B", "912 KiB", "65.1 GiB": three digits at most, IEC units.
std::string format_size(std::uint64_t bytes);
// "1.22 GiB/s".
std::string format_rate(double bytes_per_second);
// "2 115": groups of three.
std::string format_count(std::uint64_t count);
// "3 ms", "0.3 s", "12 s", "1 min 40 s", "13 h 33 min", "14 d 0 h": the two largest units.
// Negative: "-…".
std::string format_duration(std::chrono::microseconds duration);
// "63 %" rounded down, so that 100 % means done; "0 %" when `total` is zero.
std::string format_percent(std::uint64_t done, std::uint64_t total);

// The zone times are shown in: `configured` if not empty, else TZ, else the system's, else UTC.
// Always a name of the system's zone database.
std::string display_zone(const std::string& configured);
// False unless `zone` is a name of the system's zone database.
[[nodiscard]] bool is_time_zone(const std::string& zone);
// "2026-08-22 14:02:57.981 CEST": local time in `zone` with `digits` (0 to 6) of a second, cut, not
// rounded.
std::string format_local(WallTime at, const std::string& zone, int digits = 3);
// "2026-08-22T12:02:57.981Z".
std::string format_utc(WallTime at, int digits = 3);
// Both, with three blanks between: for every line a decision hangs on.
std::string format_both(WallTime at, const std::string& zone, int digits = 3);

// The answer of a verb on stdout: with -o json over several lines, with -o jsonl in one; bytes that
// are not UTF-8 are replaced. Not for -o text.
void print_answer(const Globals& globals, const nlohmann::json& answer);
void print_answer(const Globals& globals, const nlohmann::ordered_json& answer);

// Bytes of the control character at `text[at]`, or 0 if none is there: C0, DEL, C1 (U+0080 to
// U+009F), marks and embeddings of direction (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069),
// and the separators of lines and paragraphs (U+2028, U+2029).
std::size_t control_length(std::string_view text, std::size_t at);
// Names from servers and files, fit for a terminal: control characters and bytes that are not UTF-8
// become \xHH.
std::string printable(std::string_view text);
// Columns of a terminal that `text` takes: code points of UTF-8.
std::size_t display_width(std::string_view text);

// Columns as wide as their widest cell, two blanks between, no blanks at line ends. Cells are shown
// as they are given: pass outside text through printable().
class Table {
public:
    enum class Align { left, right };
    explicit Table(std::vector<std::string> headers, std::vector<Align> aligns = {});
    // Missing cells are empty; more cells than headers are an error of the caller (asserted).
    void add_row(std::vector<std::string> cells);
    std::size_t row_count() const { return rows_.size(); }
    // Every line ends with '\n'. Without rows: the header line only.
    std::string text() const;

private:
    std::vector<std::string> headers_;
    std::vector<Align> aligns_;
    std::vector<std::vector<std::string>> rows_;
};

// Colour repeats what the words say. Plain unless asked for or on a capable terminal.
class Style {
public:
    explicit Style(bool colored) : colored_(colored) {}
    // For what goes to `file_descriptor`: --color, then NO_COLOR, CLICOLOR_FORCE, TERM=dumb,
    // isatty.
    static Style of(const Globals& globals, int file_descriptor);

    std::string good(std::string_view text) const { return paint("32", text); }
    std::string warning(std::string_view text) const { return paint("33", text); }
    std::string bad(std::string_view text) const { return paint("31", text); }
    std::string strong(std::string_view text) const { return paint("1", text); }
    std::string faint(std::string_view text) const { return paint("2", text); }
    bool colored() const { return colored_; }

private:
    std::string paint(std::string_view code, std::string_view text) const;
    bool colored_;
};

}  // namespace walvault::agent
