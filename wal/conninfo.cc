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

std::string value_of(const ConnectSettings& settings, std::string_view name) {
    for (const auto& [key, value] : settings)
        if (key == name) return value;
    return {};
}

// "a,,b" has three elements; "" has none.
std::vector<std::string> elements_of(const std::string& list) {
    std::vector<std::string> elements;
    if (list.empty()) return elements;
    for (std::size_t begin = 0;;) {
        std::size_t comma = list.find(',', begin);
        elements.push_back(list.substr(begin, comma - begin));
        if (comma == std::string::npos) return elements;
        begin = comma + 1;
    }
}

void set_list(ConnectSettings& settings, const std::string& name, const std::vector<ServerAddress>& servers,
              std::string ServerAddress::*part) {
    std::string list;
    bool says_something = false;
    for (std::size_t i = 0; i < servers.size(); ++i) {
        says_something = says_something || !(servers[i].*part).empty();
        list += (i == 0 ? "" : ",") + servers[i].*part;
    }
    std::erase_if(settings, [&](const auto& setting) { return setting.first == name; });
    if (says_something) settings.emplace_back(name, list);
}

}  // namespace

std::vector<ServerAddress> servers_of(const ConnectSettings& settings) {
    const auto hosts = elements_of(value_of(settings, "host"));
    const auto addresses = elements_of(value_of(settings, "hostaddr"));
    const auto ports = elements_of(value_of(settings, "port"));
    std::vector<ServerAddress> servers(std::max({hosts.size(), addresses.size(), std::size_t{1}}));
    for (std::size_t i = 0; i < servers.size(); ++i) {
        if (i < hosts.size()) servers[i].host = hosts[i];
        if (i < addresses.size()) servers[i].hostaddr = addresses[i];
        // One port is everybody's.
        if (!ports.empty()) servers[i].port = ports.size() == 1 ? ports.front() : ports[std::min(i, ports.size() - 1)];
    }
    return servers;
}

void set_servers(ConnectSettings& settings, const std::vector<ServerAddress>& servers) {
    WV_ASSERT(!servers.empty());
    set_list(settings, "host", servers, &ServerAddress::host);
    set_list(settings, "hostaddr", servers, &ServerAddress::hostaddr);
    set_list(settings, "port", servers, &ServerAddress::port);
}

std::string to_string(const ServerAddress& server) {
    const std::string& place = server.host.empty() ? server.hostaddr : server.host;
    const std::string text = place.empty() ? "the default host" : place;
    return server.port.empty() ? text : text + ":" + server.port;
}

bool same_server(const ServerAddress& a, const ServerAddress& b) {
    auto fits = [](const std::string& x, const std::string& y) { return x.empty() || y.empty() || x == y; };
    auto place = [](const ServerAddress& server) { return server.host.empty() ? server.hostaddr : server.host; };
    return fits(place(a), place(b)) && fits(a.hostaddr, b.hostaddr) && fits(a.port, b.port);
}

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
    if (options.mode == Connection::Mode::database_replication) set(settings, "replication", "database");
    if (!options.database.empty()) set(settings, "dbname", options.database);
    if (options.only) {
        set_servers(settings, {*options.only});
        set(settings, "target_session_attrs", "any");
    } else if (options.writable && servers_of(settings).size() > 1) {
        set(settings, "target_session_attrs", "read-write");
    }
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
