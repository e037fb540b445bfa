#include "wal/conninfo.h"

#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace walvault::wal {
namespace {

Error parse_error(const std::string& conninfo, char* message) {
    std::unique_ptr<char, void (*)(void*)> owner(message, PQfreemem);
    // libpq quotes the part it could not read, which can be the second word of a password.
    bool may_hold_password =
        conninfo.find("pass") != std::string::npos || conninfo.find("://") != std::string::npos;
    std::string text = "the conninfo cannot be read";
    if (message != nullptr && !may_hold_password) {
        std::string reason = message;
        while (!reason.empty() && reason.back() == '\n') reason.pop_back();
        text += ": " + reason;
    }
    return Error{Errc::invalid_argument, text,
                 "Write it as libpq does: host=/run/postgresql user=walvault; values with spaces in "
                 "single quotes."};
}

bool has(const ConnectSettings& settings, std::string_view name) {
    return std::any_of(settings.begin(), settings.end(),
                       [&](const auto& setting) { return setting.first == name; });
}

void set(ConnectSettings& settings, const std::string& name, const std::string& value) {
    std::erase_if(settings, [&](const auto& setting) { return setting.first == name; });
    settings.emplace_back(name, value);
}

void set_unless_given(ConnectSettings& settings, const std::string& name, const std::string& value) {
    if (!has(settings, name)) settings.emplace_back(name, value);
}

}  // namespace

Result<ConnectSettings> connect_settings(const Connection::Options& options) {
    if (options.conninfo.find('\0') != std::string::npos)
        return fail(Errc::invalid_argument, "the conninfo holds a NUL byte");
    char* message = nullptr;
    std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> parsed(
        PQconninfoParse(options.conninfo.c_str(), &message), PQconninfoFree);
    if (!parsed) return fail(parse_error(options.conninfo, message));

    ConnectSettings settings;
    for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option)
        if (option->val != nullptr) settings.emplace_back(option->keyword, option->val);
    std::erase_if(settings, [](const auto& setting) { return setting.first == "replication"; });
    if (options.mode == Connection::Mode::physical_replication) set(settings, "replication", "true");
    set(settings, "application_name", options.application_name);
    set(settings, "fallback_application_name", "walvault");
    set(settings, "client_encoding", "UTF8");
    // A dead link must not look idle for the two hours that the kernel's defaults allow.
    set_unless_given(settings, "keepalives", "1");
    set_unless_given(settings, "keepalives_idle", "30");
    set_unless_given(settings, "keepalives_interval", "10");
    set_unless_given(settings, "keepalives_count", "3");
    set_unless_given(settings, "tcp_user_timeout", "60000");
    return settings;
}

std::chrono::seconds connect_timeout_of(const ConnectSettings& settings,
                                        std::chrono::seconds otherwise) {
    for (const auto& [name, value] : settings) {
        if (name != "connect_timeout") continue;
        int seconds = 0;
        auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
        if (error == std::errc() && end == value.data() + value.size() && seconds > 0)
            return std::chrono::seconds(seconds);
    }
    return otherwise;
}

}  // namespace walvault::wal
