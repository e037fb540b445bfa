#include "base/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

using namespace walvault;

namespace {

// What `write` sends to stderr.
template <class Write>
std::string captured(Write write) {
    std::FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    std::fflush(stderr);
    const int saved = ::dup(2);
    ::dup2(::fileno(file), 2);
    write();
    std::fflush(stderr);
    ::dup2(saved, 2);
    ::close(saved);
    std::rewind(file);
    std::string text;
    for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file))
        text += static_cast<char>(c);
    std::fclose(file);
    return text;
}

const std::string kHostile = std::string("a\"b\\c\nd\te\x1b[31m\x7f\r") + '\0' + "end";

}  // namespace

TEST_CASE("a JSON line is one object whatever the values hold") {
    log::configure(log::Level::info, log::Format::json);
    const std::string text = captured([] {
        log::warn("wal.gap", "it said " + kHostile,
                  {{"path", kHostile}, {"bytes", 17}, {"empty", ""}});
    });
    log::configure(log::Level::info, log::Format::text);
    REQUIRE(text.ends_with('\n'));
    CHECK(std::count(text.begin(), text.end(), '\n') == 1);
    const auto line = nlohmann::json::parse(text, nullptr, false);
    REQUIRE(line.is_object());
    CHECK(line["event"] == "wal.gap");
    CHECK(line["level"] == "warn");
    CHECK(line["path"] == kHostile);
    CHECK(line["message"] == "it said " + kHostile);
    CHECK(line["bytes"] == 17);
    CHECK(line["empty"] == "");
}

TEST_CASE("a text line cannot be forged by its values") {
    log::configure(log::Level::info, log::Format::text);
    const std::string text = captured([] {
        log::info("stream.open", "sentence\nforged",
                  {{"path", kHostile}, {"plain", "x=y"}, {"n", 5}});
    });
    CHECK(std::count(text.begin(), text.end(), '\n') == 1);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find("n=5") != std::string::npos);
    CHECK(text.find("plain=\"x=y\"") != std::string::npos);
}

TEST_CASE("levels filter lines, and every line is counted") {
    log::configure(log::Level::warn, log::Format::text);
    const auto before = log::written_count(log::Level::info);
    CHECK(captured([] { log::info("a.b", "not shown"); }).empty());
    CHECK(log::written_count(log::Level::info) == before + 1);
    CHECK_FALSE(captured([] { log::error("a.b", "shown"); }).empty());
    log::Level level{};
    CHECK(log::parse_level("debug", level));
    CHECK(level == log::Level::debug);
    CHECK_FALSE(log::parse_level("loud", level));
    log::configure(log::Level::info, log::Format::text);
}
