#include "agent/progress_line.h"

#include <doctest/doctest.h>

#include <csignal>
#include <nlohmann/json.hpp>

namespace walvault::agent {
namespace {

class ManualClock : public Clock {
public:
    WallTime now() const override { return WallTime(Micros(1'787'400'432'000'000) + passed_); }
    SteadyTime steady_now() const override { return SteadyTime(passed_); }
    void advance(std::chrono::microseconds by) { passed_ += by; }

private:
    std::chrono::microseconds passed_{1'000'000};
};

struct Screen {
    ManualClock clock;
    std::vector<std::string> pieces;
    ProgressLine line(ProgressMode mode, int width = 80) {
        ProgressLine::Options options;
        options.mode = mode;
        options.verb = "restore";
        options.sink = [this](std::string_view text) { pieces.emplace_back(text); };
        options.width = [width] { return width; };
        return ProgressLine(std::move(options), clock);
    }
};

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr std::uint64_t kMiB = 1 << 20;

TEST_CASE("A log gets a line at the start, at each tenth and at the end") {
    Screen screen;
    auto line = screen.line(ProgressMode::plain);
    line.begin("copy", 100 * kMiB);
    for (std::uint64_t i = 1; i <= 100; ++i) {
        screen.clock.advance(milliseconds(100));
        line.update(i * kMiB);
    }
    line.finish();
    REQUIRE(screen.pieces.size() == 12);
    CHECK(screen.pieces[0] == "2026-08-22T12:07:13Z restore copy started, 100 MiB to do\n");
    CHECK(screen.pieces[5] ==
          "2026-08-22T12:07:18Z restore copy 50% 50/100 MiB 10 MiB/s eta 5.0s\n");
    CHECK(screen.pieces[11] == "2026-08-22T12:07:23Z restore copy 100% 100 MiB done in 10 s\n");
}

TEST_CASE("A log gets a line every 30 seconds even when nothing moves") {
    Screen screen;
    auto line = screen.line(ProgressMode::plain);
    line.begin("replay", 1000 * kMiB);
    for (int i = 0; i < 61; ++i) {
        screen.clock.advance(seconds(1));
        line.update(kMiB);
    }
    CHECK(screen.pieces.size() == 3);
}

TEST_CASE("A terminal is redrawn ten times a second at most, within its width") {
    Screen screen;
    auto line = screen.line(ProgressMode::tty, 40);
    line.begin("copy", 1000 * kMiB);
    for (std::uint64_t i = 1; i <= 1000; ++i) {
        screen.clock.advance(milliseconds(2));
        line.update(i * kMiB);
    }
    line.finish();
    CHECK(screen.pieces.size() == 22);
    for (const std::string& piece : screen.pieces) {
        std::size_t columns = 0;
        for (char c : piece)
            if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++columns;
        CHECK(columns <= 39 + std::string("\r\033[K\n").size());
        CHECK(piece.front() == '\r');
    }
    CHECK(screen.pieces.back().back() == '\n');
    CHECK(screen.pieces.back().find("100%") != std::string::npos);
}

TEST_CASE("JSON lines are valid, one a second, and the last says that the phase is done") {
    Screen screen;
    auto line = screen.line(ProgressMode::json);
    line.begin("co\"py", 10 * kMiB);
    for (std::uint64_t i = 1; i <= 10; ++i) {
        screen.clock.advance(milliseconds(500));
        line.update(i * kMiB);
    }
    line.finish();
    REQUIRE(screen.pieces.size() == 7);
    auto last = nlohmann::json::parse(screen.pieces.back());
    CHECK(last["phase"] == "co\"py");
    CHECK(last["bytes_done"] == 10 * kMiB);
    CHECK(last["phase_done"] == true);
    CHECK_FALSE(nlohmann::json::parse(screen.pieces[1]).contains("eta_s"));
    CHECK(nlohmann::json::parse(screen.pieces[4])["eta_s"] == 1);
}

TEST_CASE("SIGUSR1 asks for a line out of turn") {
    Screen screen;
    Globals globals;
    globals.progress = ProgressMode::none;
    { auto installs_the_handler = ProgressLine::for_globals(globals, "restore", screen.clock); }
    auto line = screen.line(ProgressMode::plain);
    line.begin("copy", 100 * kMiB);
    line.update(kMiB);
    CHECK(screen.pieces.size() == 1);
    raise(SIGUSR1);
    line.update(kMiB);
    CHECK(screen.pieces.size() == 2);
}

TEST_CASE("An abandoned phase on a terminal leaves its line and nothing after it") {
    Screen screen;
    {
        auto line = screen.line(ProgressMode::tty);
        line.begin("copy", 0);
        auto moved = std::move(line);
        moved.update(kMiB);
    }
    CHECK(screen.pieces.back() == "\n");
    CHECK(std::count(screen.pieces.begin(), screen.pieces.end(), "\n") == 1);
}

}  // namespace
}  // namespace walvault::agent
