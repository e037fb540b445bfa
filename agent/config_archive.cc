#include "agent/config_archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "agent/config_values.h"
#include "agent/render.h"

namespace walvault::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// "0.01/GB"
Result<double> parse_price(const std::string& text, std::string_view unit) {
    double price = 0;
    const std::string_view number(text.data(),
                                  text.size() - (text.ends_with(unit) ? unit.size() : 0));
    auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), price,
                                        std::chars_format::fixed);
    const bool good = number.size() < text.size() && error == std::errc{} &&
                      end == number.data() + number.size() && price >= 0 && price < 1e6;
    if (good) return price;
    return wrong_value(fmt::format("\"{}\" is not a price like 0.01{}", printable(text), unit));
}

// "GLACIER standard 0.01/GB 0.05/1000 5h"
Result<> take_thaw_price(storage::ThawPrices& prices, const std::string& text) {
    std::vector<std::string> words;
    for (std::size_t from = 0; (from = text.find_first_not_of(' ', from)) != std::string::npos;) {
        const std::size_t end = std::min(text.find(' ', from), text.size());
        words.push_back(text.substr(from, end - from));
        from = end;
    }
    if (words.size() != 5)
        return wrong_value(
            fmt::format("\"{}\" is not CLASS SPEED PRICE/GB PRICE/1000 TIME", printable(text)),
            "for example \"GLACIER standard 0.01/GB 0.05/1000 5h\"");
    auto speed = storage::parse_thaw_speed(words[1]);
    if (!speed)
        return wrong_value(fmt::format("\"{}\": {}", printable(words[1]), speed.error().message));
    storage::ThawPrice price;
    WV_TRY(price.per_gb, parse_price(words[2], "/GB"));
    WV_TRY(price.per_1000_requests, parse_price(words[3], "/1000"));
    WV_TRY(milliseconds time, duration_between(words[4], seconds(1), hours(24 * 30)));
    price.ready_after = std::chrono::duration_cast<seconds>(time);
    prices.thaws[{words[0], *speed}] = price;
    return {};
}

}  // namespace

Result<> set_thaw_speed(Config& config, ServerConfig*, const std::string& text) {
    auto speed = storage::parse_thaw_speed(text);
    if (!speed)
        return wrong_value(fmt::format("\"{}\": {}", printable(text), speed.error().message));
    config.archive.thaw.speed = *speed;
    return {};
}

Result<> set_thaw_days(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(const int days, parse_integer(text, 1, 365));
    config.archive.thaw.days = static_cast<unsigned>(days);
    return {};
}

Result<> set_poll_interval(Config& config, ServerConfig*, const std::string& text) {
    WV_TRY(config.archive.poll_interval, duration_between(text, seconds(1), hours(24)));
    return {};
}

Result<> set_currency(Config& config, ServerConfig*, const std::string& text) {
    const bool good =
        !text.empty() && text.size() <= 8 && text.find_first_of(" \t\n\r\x1b") == std::string::npos;
    if (!good) return wrong_value("a currency has 1 to 8 characters", "for example USD");
    config.archive.prices.currency = text;
    return {};
}

Result<> set_prices(Config& config, ServerConfig*, const std::string& text) {
    config.archive.prices.thaws.clear();
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t comma = std::min(text.find(", ", from), text.size());
        WV_CHECK(take_thaw_price(config.archive.prices, text.substr(from, comma - from)));
        from = comma + 2;
    }
    return {};
}

Result<> set_egress(Config& config, ServerConfig*, const std::string& text) {
    config.archive.prices.egress_per_gb.reset();
    if (text.empty()) return {};
    WV_TRY(config.archive.prices.egress_per_gb, parse_price(text, "/GB"));
    return {};
}

}  // namespace walvault::agent
