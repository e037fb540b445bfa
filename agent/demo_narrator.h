// Narrator: the demo's voice on stdout: numbered steps with the time each took, and lines under
// them.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "agent/render.h"

namespace walvault::agent {

class Narrator {
public:
    Narrator(const Globals& globals, int step_count);

    void line(std::string_view text) const;
    // Announces a step; on a terminal at once, so that one sees what is being waited for.
    void begin(const std::string& what);
    // Completes the line of the step with its time and `remark`.
    void end(const std::string& remark = {});
    // The step did not end well.
    void broken();
    // Something under a step, set in; each line of `text`.
    void detail(std::string_view text) const;
    // A command as a person would type it.
    void typed(std::string_view command) const;

    const Style& style() const { return style_; }
    std::chrono::microseconds since_start() const;

private:
    std::string heading() const;

    Style style_;
    bool quiet_;
    bool terminal_;
    int step_count_;
    int step_ = 0;
    bool open_ = false;
    std::string what_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point step_start_ = start_;
};

}  // namespace walvault::agent
