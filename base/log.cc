#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <memory>

#include "base/clock.h"

namespace walvault::log {
namespace {

std::atomic<Format> current_format{Format::text};
std::array<std::atomic<std::uint64_t>, 6> counts{};

spdlog::level::level_enum to_spdlog(Level level) {
    static constexpr std::array kLevels{spdlog::level::trace, spdlog::level::debug,
                                        spdlog::level::info,  spdlog::level::warn,
                                        spdlog::level::err,   spdlog::level::off};
    return kLevels[static_cast<std::size_t>(level)];
}

spdlog::logger& logger() {
    static auto instance = [] {
        auto created = std::make_shared<spdlog::logger>(
            "walvault", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        created->set_pattern("%v");
        created->flush_on(spdlog::level::trace);
        return created;
    }();
    return *instance;
}

std::function<void(const std::string&)>& taker() {
    static std::function<void(const std::string&)> instance;
    return instance;
}

std::string_view name_of(Level level) {
    static constexpr std::array<std::string_view, 6> kNames{"trace", "debug", "info",
                                                            "warn",  "error", "off"};
    return kNames[static_cast<std::size_t>(level)];
}

// Values come from servers and files: nothing in them may forge a line or move a terminal's cursor.
void append_escaped(std::string& out, std::string_view text) {
    for (char c : text) {
        unsigned char byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (byte < 0x20 || byte == 0x7F) {
            out += fmt::format("\\u{:04x}", byte);
        } else {
            out += c;
        }
    }
}

void append_quoted(std::string& out, std::string_view text) {
    out += '"';
    append_escaped(out, text);
    out += '"';
}

std::string text_line(Level level, std::string_view event, std::string_view sentence,
                      std::initializer_list<Field> fields) {
    std::string line = fmt::format("{:<5} {}", name_of(level), event);
    for (const Field& field : fields) {
        line += ' ';
        line += field.key;
        line += '=';
        bool bare =
            !field.value.empty() && field.value.find_first_of(" \"\\\n\t=") == std::string::npos;
        if (field.is_number || bare)
            append_escaped(line, field.value);
        else
            append_quoted(line, field.value);
    }
    if (!sentence.empty()) {
        line += " - ";
        append_escaped(line, sentence);
    }
    return line;
}

std::string json_line(Level level, std::string_view event, std::string_view sentence,
                      std::initializer_list<Field> fields) {
    std::string line = fmt::format(R"({{"time":"{}","level":"{}","event":)",
                                   to_utc_text(system_clock().now()), name_of(level));
    append_quoted(line, event);
    line += ",\"message\":";
    append_quoted(line, sentence);
    for (const Field& field : fields) {
        line += ',';
        append_quoted(line, field.key);
        line += ':';
        if (field.is_number)
            line += field.value;
        else
            append_quoted(line, field.value);
    }
    return line + '}';
}

}  // namespace

void configure(Level level, Format format) {
    current_format = format;
    set_level(level);
}

void take_lines(std::function<void(const std::string&)> new_taker) {
    taker() = std::move(new_taker);
}

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

bool parse_level(std::string_view name, Level& level) {
    for (Level candidate :
         {Level::trace, Level::debug, Level::info, Level::warn, Level::error, Level::off}) {
        if (name_of(candidate) != name) continue;
        level = candidate;
        return true;
    }
    return false;
}

void write(Level level, std::string_view event, std::string_view sentence,
           std::initializer_list<Field> fields) {
    counts[static_cast<std::size_t>(level)].fetch_add(1, std::memory_order_relaxed);
    if (!logger().should_log(to_spdlog(level))) return;
    if (taker()) return taker()(text_line(level, event, sentence, fields));
    std::string line =
        current_format == Format::json
            ? json_line(level, event, sentence, fields)
            : to_utc_text(system_clock().now()) + ' ' + text_line(level, event, sentence, fields);
    logger().log(to_spdlog(level), "{}", line);
}

std::uint64_t written_count(Level level) {
    return counts[static_cast<std::size_t>(level)].load(std::memory_order_relaxed);
}

}  // namespace walvault::log
