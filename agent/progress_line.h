// ProgressLine: how far a job is: one redrawn line on a terminal, dated plain lines in a log, or
// JSON lines.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/verbs.h"
#include "base/clock.h"

namespace walvault::agent {

// Phases follow one another: begin, update…, finish (or abandon). Call from one thread. On a
// terminal at most 10 redraws a second; plain: at the start, at each 10 %, at least every 30 s
// while updates come, and at the end; JSON: at most one a second and the end. SIGUSR1 forces a line
// at the next update.
class ProgressLine {
public:
    enum class Unit { bytes, items };
    using Sink = std::function<void(std::string_view)>;

    struct Options {
        ProgressMode mode = ProgressMode::plain;  // automatic is resolved by for_globals
        std::string verb;                         // "restore"
        int redraws_per_second = 10;              // WALVAULT_PROGRESS_FPS
        Sink sink;  // gets whole pieces of text, with their '\r' and '\n'
        std::function<int()> width = [] {
            return 80;
        };  // columns of the terminal, asked at each redraw
    };
    ProgressLine(Options options, const Clock& clock);
    // By --progress, --quiet, -o and whether stderr is a terminal. -o jsonl: JSON lines on stdout,
    // else stderr. Catches SIGUSR1.
    static ProgressLine for_globals(const Globals& globals, std::string verb, const Clock& clock);
    ~ProgressLine();  // an unfinished phase is abandoned
    ProgressLine(ProgressLine&&) noexcept;
    ProgressLine& operator=(ProgressLine&&) = delete;

    // `total` 0: not known, no percentage and no estimate.
    void begin(std::string phase, std::uint64_t total, Unit unit = Unit::bytes);
    void set_total(std::uint64_t total);
    // Done so far in this phase, not the difference.
    void update(std::uint64_t done);
    // The phase ended well: its line stays, with the time it took.
    void finish();
    // The phase ended otherwise: its line stays as it is; the error says the rest.
    void abandon();

private:
    struct Phase {
        std::string name;
        std::uint64_t total = 0;
        std::uint64_t done = 0;
        Unit unit = Unit::bytes;
        SteadyTime started{};
        SteadyTime rate_at{};  // when rate_done was taken
        std::uint64_t rate_done = 0;
        double rate = 0;  // a second; EWMA over 10 s
        SteadyTime drawn_at{};
        int tenths_drawn = 0;
    };
    enum class Moment { start, step, end };
    void measure_rate(SteadyTime now);
    bool is_due(SteadyTime now) const;
    void draw(SteadyTime now, Moment moment);
    std::string terminal_text(SteadyTime now, Moment moment) const;
    std::string plain_text(SteadyTime now, Moment moment) const;
    std::string json_text(SteadyTime now, Moment moment) const;
    std::optional<std::chrono::seconds> time_left(SteadyTime now) const;
    std::string amount(bool with_total) const;
    std::string number_text(std::uint64_t number) const;

    Options options_;
    const Clock* clock_;
    std::optional<Phase> phase_;
};

}  // namespace walvault::agent
