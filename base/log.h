// Structured log lines: an event name, a sentence, and key/value pairs; text or one JSON object a
// line.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace walvault::log {

enum class Level { trace, debug, info, warn, error, off };
enum class Format { text, json };

struct Field {
    std::string_view key;
    std::string value;
    bool is_number = false;

    Field(std::string_view name, std::string_view text) : key(name), value(text) {}
    Field(std::string_view name, const std::string& text) : key(name), value(text) {}
    Field(std::string_view name, const char* text) : key(name), value(text) {}
    template <class T>
    requires std::is_arithmetic_v<T> Field(std::string_view name, T number)
        : key(name), value(std::to_string(number)), is_number(true) {}
};

// Lines go to stderr. Called before the first line, and again when the configuration changes; the
// default is text at info.
void configure(Level level, Format format);
void set_level(Level level);
// Errors: false if `name` is not a level.
[[nodiscard]] bool parse_level(std::string_view name, Level& level);

// Lines that are written go to `taker` as text without a time, and no more to stderr; an empty one
// ends that. Not while other threads write.
void take_lines(std::function<void(const std::string& line)> taker);

// `event` is area.event, stable: people grep for it. Control characters in values are escaped.
// Never pass a secret or a row value. May be called from any thread.
void write(Level level, std::string_view event, std::string_view sentence,
           std::initializer_list<Field> fields = {});
inline void debug(std::string_view event, std::string_view sentence,
                  std::initializer_list<Field> fields = {}) {
    write(Level::debug, event, sentence, fields);
}
inline void info(std::string_view event, std::string_view sentence,
                 std::initializer_list<Field> fields = {}) {
    write(Level::info, event, sentence, fields);
}
inline void warn(std::string_view event, std::string_view sentence,
                 std::initializer_list<Field> fields = {}) {
    write(Level::warn, event, sentence, fields);
}
inline void error(std::string_view event, std::string_view sentence,
                  std::initializer_list<Field> fields = {}) {
    write(Level::error, event, sentence, fields);
}

// How many lines of `level` were written since start; for the metric of that name.
std::uint64_t written_count(Level level);

}  // namespace walvault::log
