#include "wal/pq_error.h"

#include <fmt/format.h>

#include <cctype>
#include <vector>

namespace walvault::wal {
namespace {

// A verbose message is `SEVERITY:  SQLSTATE: text`; the severity is in the server's language.
constexpr std::string_view kBeforeState = ":  ";
constexpr std::size_t kStateLength = 5;

bool is_state_at(std::string_view text, std::size_t at) {
    if (at + kStateLength + 2 > text.size()) return false;
    for (std::size_t i = at; i < at + kStateLength; ++i) {
        bool upper_or_digit = (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= '0' && text[i] <= '9');
        if (!upper_or_digit) return false;
    }
    return text.substr(at + kStateLength, 2) == ": ";
}

std::string field(const PGresult* result, int code) {
    const char* text = PQresultErrorField(result, code);
    return text == nullptr ? std::string() : std::string(text);
}

std::string joined_lines(std::string_view text) {
    std::string joined;
    while (!text.empty()) {
        std::size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front())))
            line.remove_prefix(1);
        if (line.empty()) continue;
        if (!joined.empty()) joined += "; ";
        joined += line;
    }
    return joined;
}

}  // namespace

tl::unexpected<Error> server_failed(Errc code, std::string message, std::string hint) {
    return fail(Error{code, std::move(message), std::move(hint), Origin::server});
}

Errc errc_of_sqlstate(std::string_view state) {
    std::string_view state_class = state.substr(0, 2);
    if (state_class == "28" || state == "42501") return Errc::refused;
    if (state == "55006" || state == "55P03") return Errc::busy;
    if (state == "58P01") return Errc::gap;
    if (state == "42704") return Errc::not_found;
    if (state == "XX001" || state == "XX002") return Errc::corrupt;
    // What was asked for is wrong by itself: not offered, bad values, no such database or schema,
    // bad syntax.
    for (std::string_view final_class : {"0A", "22", "3D", "3F", "42"})
        if (state_class == final_class) return Errc::invalid_argument;
    // The server's own trouble (its disk, its memory, a bug, an extension) passes or is mended
    // without us; a code that is not known here is no proof that trying again is in vain.
    return Errc::unavailable;
}

std::string hint_of_sqlstate(std::string_view state, std::string_view role) {
    if (state.empty())
        return "Start PostgreSQL, or correct host and port; over TCP check listen_addresses and firewalls.";
    if (state == "28P01")
        return "Correct the password where libpq finds it: the passfile (~/.pgpass) or the conninfo.";
    if (state.starts_with("28"))
        return fmt::format("Create the role (CREATE ROLE {0} LOGIN REPLICATION) and let it in with a line "
                           "in pg_hba.conf such as: local replication {0} peer, or: hostssl replication "
                           "{0} ADDRESS scram-sha-256; then SELECT pg_reload_conf().",
                           role);
    if (state == "42501")
        return fmt::format("Give the role what it needs: ALTER ROLE {} REPLICATION, or the GRANT named in "
                           "the manual.",
                           role);
    if (state == "53300")
        return "Raise max_wal_senders or max_connections, or end a session that is not needed.";
    if (state == "53400") return "Raise max_replication_slots, or drop a slot that is not needed.";
    if (state == "55006")
        return "Another walvault, or another tool, uses the slot: stop it, or use another slot.";
    if (state == "57P03") return "PostgreSQL is starting up or shutting down; it will be tried again.";
    return {};
}

std::string sqlstate_of_result(const PGresult* result) { return field(result, PG_DIAG_SQLSTATE); }

Error error_of_result(const PGresult* result, std::string_view role) {
    std::string state = sqlstate_of_result(result);
    std::string message = field(result, PG_DIAG_MESSAGE_PRIMARY);
    std::string detail = field(result, PG_DIAG_MESSAGE_DETAIL);
    if (message.empty()) message = PQresultErrorMessage(result);
    if (!detail.empty()) message += " (" + detail + ")";
    std::string hint = hint_of_sqlstate(state, role);
    if (hint.empty()) hint = joined_lines(field(result, PG_DIAG_MESSAGE_HINT));
    return Error{errc_of_sqlstate(state), joined_lines(message), hint, Origin::server};
}

std::string sqlstate_of_connect_message(std::string_view message) {
    std::string state;
    for (std::size_t at = message.find(kBeforeState); at != std::string_view::npos;
         at = message.find(kBeforeState, at + 1)) {
        if (is_state_at(message, at + kBeforeState.size()))
            state = message.substr(at + kBeforeState.size(), kStateLength);
    }
    return state;
}

std::string readable_connect_message(std::string_view message) {
    std::string kept;
    while (!message.empty()) {
        std::size_t end = message.find('\n');
        std::string_view line = message.substr(0, end);
        message = end == std::string_view::npos ? std::string_view() : message.substr(end + 1);
        if (line.starts_with("LOCATION:")) continue;
        std::size_t at = line.find(kBeforeState);
        if (at != std::string_view::npos && is_state_at(line, at + kBeforeState.size())) {
            kept += line.substr(0, at + 2);
            line.remove_prefix(at + kBeforeState.size() + kStateLength + 2);
        }
        kept += line;
        kept += '\n';
    }
    return joined_lines(kept);
}

std::string without_password(std::string text, std::string_view password) {
    if (password.empty()) return text;
    constexpr std::string_view kStars = "***";
    for (std::size_t at = text.find(password); at != std::string::npos;
         at = text.find(password, at + kStars.size()))
        text.replace(at, password.size(), kStars);
    return text;
}

Error error_of_connect(PGconn* connection) {
    std::string_view raw = PQerrorMessage(connection);
    std::string state = sqlstate_of_connect_message(raw);
    const char* password = PQpass(connection);
    const char* role = PQuser(connection);
    std::string text = readable_connect_message(raw);
    return Error{errc_of_sqlstate(state),
                 without_password("connect to PostgreSQL: " + text, password == nullptr ? "" : password),
                 hint_of_sqlstate(state, role == nullptr ? "ROLE" : role), Origin::server};
}

}  // namespace walvault::wal
