#include "agent/demo_narrator.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace walvault::agent {
namespace {

constexpr std::size_t kWhatWidth = 50;

void print(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

std::chrono::microseconds elapsed(std::chrono::steady_clock::time_point since) {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                                 since);
}

std::string padded(const std::string& text, std::size_t width) {
    const std::size_t used = display_width(text);
    return used < width ? text + std::string(width - used, ' ') : text + "  ";
}

// "1.4 s": steps are compared with each other, so all are in seconds.
std::string step_time(std::chrono::microseconds time) {
    return fmt::format("{:5.1f} s", static_cast<double>(time.count()) / 1e6);
}

}  // namespace

Narrator::Narrator(const Globals& globals, int step_count)
    : style_(Style::of(globals, STDOUT_FILENO)),
      quiet_(globals.quiet),
      terminal_(isatty(STDOUT_FILENO) == 1),
      step_count_(step_count) {}

std::chrono::microseconds Narrator::since_start() const { return elapsed(start_); }

void Narrator::line(std::string_view text) const {
    if (!quiet_) print(std::string(text) + '\n');
}

std::string Narrator::heading() const {
    return style_.faint(fmt::format(" {}/{}  ", step_, step_count_)) + padded(what_, kWhatWidth);
}

void Narrator::begin(const std::string& what) {
    ++step_;
    what_ = what;
    open_ = true;
    step_start_ = std::chrono::steady_clock::now();
    if (!quiet_ && terminal_) print(heading());
}

void Narrator::end(const std::string& remark) {
    open_ = false;
    if (quiet_) return;
    const std::string tail =
        step_time(elapsed(step_start_)) + (remark.empty() ? "" : "   " + remark) + '\n';
    print(terminal_ ? "\r" + heading() + tail : heading() + tail);
}

void Narrator::broken() {
    if (open_ && !quiet_)
        print((terminal_ ? "\r" + heading() : heading()) + style_.bad("failed") + '\n');
    open_ = false;
}

void Narrator::detail(std::string_view text) const {
    if (quiet_) return;
    while (!text.empty() && text.back() == '\n')
        text.remove_suffix(1);
    std::string out;
    for (std::size_t from = 0; from <= text.size();) {
        const std::size_t to = std::min(text.find('\n', from), text.size());
        out +=
            std::string(to > from ? 9 : 0, ' ') + std::string(text.substr(from, to - from)) + '\n';
        from = to + 1;
    }
    print(out);
}

void Narrator::typed(std::string_view command) const {
    detail(style_.strong("$ " + std::string(command)));
}

}  // namespace walvault::agent
