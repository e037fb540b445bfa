#include "agent/progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "agent/render.h"

namespace walvault::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::atomic<bool> line_wanted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_sigusr1(int) { line_wanted = true; }

double elapsed_seconds(SteadyTime from, SteadyTime to) {
    return std::chrono::duration<double>(to - from).count();
}

std::string elapsed_text(SteadyTime from, SteadyTime to) {
    return format_duration(std::chrono::duration_cast<std::chrono::microseconds>(to - from));
}

std::string without_blanks(std::string text) {
    std::erase(text, ' ');
    return text;
}

std::string bar(std::uint64_t done, std::uint64_t total) {
    constexpr int kCells = 20;
    int full = static_cast<int>(static_cast<double>(std::min(done, total)) /
                                static_cast<double>(total) * kCells);
    std::string text;
    for (int i = 0; i < kCells; ++i)
        text += i < full ? "█" : "░";
    return text;
}

// The first `columns` code points.
std::string cut(const std::string& text, std::size_t columns) {
    std::size_t seen = 0;
    for (std::size_t at = 0; at < text.size(); ++at) {
        bool starts = (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
        if (starts && seen++ == columns) return text.substr(0, at);
    }
    return text;
}

std::string left_text(seconds left) {
    if (left > seconds(3600)) return "over 1 h";
    return format_duration(left);
}

int terminal_width(int file_descriptor) {
    winsize size{};
    if (ioctl(file_descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

int redraws_from_environment() {
    const char* text = std::getenv("WALVAULT_PROGRESS_FPS");
    if (text == nullptr) return 10;
    long number = std::strtol(text, nullptr, 10);
    return static_cast<int>(std::clamp(number, 1l, 60l));
}

ProgressMode resolve_mode(const Globals& globals) {
    if (globals.progress != ProgressMode::automatic) return globals.progress;
    if (globals.quiet) return ProgressMode::none;
    if (globals.output == Output::jsonl) return ProgressMode::json;
    if (globals.output == Output::json) return ProgressMode::none;
    const char* terminal = std::getenv("TERM");
    bool capable = terminal != nullptr && std::string_view(terminal) != "dumb";
    return capable && isatty(STDERR_FILENO) == 1 ? ProgressMode::tty : ProgressMode::plain;
}

}  // namespace

ProgressLine::ProgressLine(Options options, const Clock& clock)
    : options_(std::move(options)), clock_(&clock) {}

ProgressLine::ProgressLine(ProgressLine&& other) noexcept
    : options_(std::move(other.options_)), clock_(other.clock_), phase_(std::move(other.phase_)) {
    other.phase_.reset();
}

ProgressLine::~ProgressLine() { abandon(); }

ProgressLine ProgressLine::for_globals(const Globals& globals, std::string verb,
                                       const Clock& clock) {
    Options options;
    options.mode = resolve_mode(globals);
    options.verb = std::move(verb);
    options.redraws_per_second = redraws_from_environment();
    std::FILE* to = globals.output == Output::jsonl ? stdout : stderr;
    options.sink = [to](std::string_view text) {
        std::fwrite(text.data(), 1, text.size(), to);
        std::fflush(to);
    };
    options.width = [] { return terminal_width(STDERR_FILENO); };
    struct sigaction action {};
    action.sa_handler = on_sigusr1;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    return ProgressLine(std::move(options), clock);
}

void ProgressLine::begin(std::string phase, std::uint64_t total, Unit unit) {
    abandon();
    SteadyTime now = clock_->steady_now();
    phase_ = Phase{.name = std::move(phase),
                   .total = total,
                   .unit = unit,
                   .started = now,
                   .rate_at = now,
                   .drawn_at = now};
    draw(now, Moment::start);
}

void ProgressLine::set_total(std::uint64_t total) {
    if (phase_) phase_->total = total;
}

void ProgressLine::update(std::uint64_t done) {
    if (!phase_) return;
    phase_->done = done;
    SteadyTime now = clock_->steady_now();
    measure_rate(now);
    if (line_wanted.exchange(false) || is_due(now)) draw(now, Moment::step);
}

void ProgressLine::finish() {
    if (!phase_) return;
    if (phase_->total != 0) phase_->done = phase_->total;
    draw(clock_->steady_now(), Moment::end);
    phase_.reset();
}

void ProgressLine::abandon() {
    if (phase_ && options_.mode == ProgressMode::tty) options_.sink("\n");
    phase_.reset();
}

void ProgressLine::measure_rate(SteadyTime now) {
    constexpr double kWindowSeconds = 10;
    double passed = elapsed_seconds(phase_->rate_at, now);
    if (passed < 0.2) return;
    std::uint64_t more = phase_->done > phase_->rate_done ? phase_->done - phase_->rate_done : 0;
    double sample = static_cast<double>(more) / passed;
    bool first = phase_->rate_at == phase_->started;
    double weight = first ? 1 : 1 - std::exp(-passed / kWindowSeconds);
    phase_->rate += weight * (sample - phase_->rate);
    phase_->rate_at = now;
    phase_->rate_done = phase_->done;
}

bool ProgressLine::is_due(SteadyTime now) const {
    auto since = now - phase_->drawn_at;
    switch (options_.mode) {
        case ProgressMode::tty:
            return since >= milliseconds(1000 / std::max(1, options_.redraws_per_second));
        case ProgressMode::json:
            return since >= seconds(1);
        case ProgressMode::none:
            return false;
        default:
            break;
    }
    if (since >= seconds(30)) return true;
    if (phase_->total == 0) return false;
    double tenths = static_cast<double>(phase_->done) / static_cast<double>(phase_->total) * 10;
    return static_cast<int>(std::min(tenths, 10.0)) > phase_->tenths_drawn;
}

void ProgressLine::draw(SteadyTime now, Moment moment) {
    phase_->drawn_at = now;
    if (phase_->total != 0) {
        double tenths = static_cast<double>(phase_->done) / static_cast<double>(phase_->total) * 10;
        phase_->tenths_drawn = static_cast<int>(std::min(tenths, 10.0));
    }
    switch (options_.mode) {
        case ProgressMode::none:
            return;
        case ProgressMode::json:
            return options_.sink(json_text(now, moment));
        case ProgressMode::tty:
            return options_.sink(terminal_text(now, moment));
        default:
            return options_.sink(plain_text(now, moment));
    }
}

std::optional<seconds> ProgressLine::time_left(SteadyTime now) const {
    constexpr double kMostSeconds = 1e9;
    if (now - phase_->started < seconds(3) || phase_->total <= phase_->done || phase_->rate <= 0)
        return {};
    double left = static_cast<double>(phase_->total - phase_->done) / phase_->rate;
    return seconds(static_cast<std::int64_t>(std::min(left, kMostSeconds)));
}

std::string ProgressLine::number_text(std::uint64_t number) const {
    return phase_->unit == Unit::bytes ? format_size(number) : format_count(number);
}

std::string ProgressLine::amount(bool with_total) const {
    if (!with_total || phase_->total == 0) return number_text(phase_->done);
    std::string done = number_text(phase_->done);
    std::string total = number_text(phase_->total);
    // "41.2/65.1 GiB": the unit once when both have the same.
    std::size_t done_unit = done.rfind(' ');
    std::size_t total_unit = total.rfind(' ');
    if (phase_->unit == Unit::bytes && done.substr(done_unit) == total.substr(total_unit))
        done.erase(done_unit);
    return done + '/' + total;
}

std::string ProgressLine::terminal_text(SteadyTime now, Moment moment) const {
    bool ended = moment == Moment::end;
    std::string line = fmt::format("{:<7}", phase_->name);
    if (phase_->total != 0) {
        std::string percent = without_blanks(format_percent(phase_->done, phase_->total));
        line += fmt::format(" {} {:>4}", bar(phase_->done, phase_->total), percent);
    }
    line += "  " + amount(!ended);
    double spent = elapsed_seconds(phase_->started, now);
    double rate = ended && spent > 0 ? static_cast<double>(phase_->done) / spent : phase_->rate;
    if (phase_->unit == Unit::bytes && rate > 0) line += "  " + format_rate(rate);
    if (ended)
        line += "  " + elapsed_text(phase_->started, now);
    else if (auto left = time_left(now))
        line += "  ETA " + left_text(*left);
    int columns = std::max(options_.width() - 1, 10);
    return '\r' + cut(line, static_cast<std::size_t>(columns)) + "\033[K" + (ended ? "\n" : "");
}

std::string ProgressLine::plain_text(SteadyTime now, Moment moment) const {
    std::string line =
        fmt::format("{} {} {}", format_utc(clock_->now(), 0), options_.verb, phase_->name);
    if (moment == Moment::start) {
        line += " started";
        if (phase_->total != 0) line += ", " + number_text(phase_->total) + " to do";
        return line + '\n';
    }
    if (phase_->total != 0)
        line += ' ' + without_blanks(format_percent(phase_->done, phase_->total));
    line += ' ' + amount(moment == Moment::step);
    if (moment == Moment::end)
        return line + " done in " + elapsed_text(phase_->started, now) + '\n';
    if (phase_->unit == Unit::bytes && phase_->rate > 0) line += ' ' + format_rate(phase_->rate);
    if (auto left = time_left(now)) line += " eta " + without_blanks(left_text(*left));
    return line + '\n';
}

std::string ProgressLine::json_text(SteadyTime now, Moment moment) const {
    std::string unit = phase_->unit == Unit::bytes ? "bytes" : "items";
    nlohmann::ordered_json line{
        {"type", "progress"}, {"verb", options_.verb}, {"phase", phase_->name}};
    line[unit + "_done"] = phase_->done;
    if (phase_->total != 0) line[unit + "_total"] = phase_->total;
    line["rate"] = std::round(phase_->rate);
    if (auto left = time_left(now)) line["eta_s"] = left->count();
    line["elapsed_s"] = std::round(elapsed_seconds(phase_->started, now) * 1000) / 1000;
    if (moment == Moment::end) line["phase_done"] = true;
    return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace walvault::agent
