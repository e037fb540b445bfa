// What libpq and the server report, as Errors: by SQLSTATE, never by the words of a message.
#pragma once

#include <libpq-fe.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace walvault::wal {

// An error of the server, or of the way to it.
tl::unexpected<Error> server_failed(Errc code, std::string message, std::string hint = {});

// The code alone; unavailable for an empty one (the connection broke) and for an unknown one.
Errc errc_of_sqlstate(std::string_view sqlstate);
// What a DBA does about it; empty when the server's message says it all.
std::string hint_of_sqlstate(std::string_view sqlstate, std::string_view role);

// Of a result whose status is an error: the server's message and detail, one sentence, no newline.
Error error_of_result(const PGresult* result, std::string_view role);
std::string sqlstate_of_result(const PGresult* result);

// Of a connection that could not be made, with verbosity PQERRORS_VERBOSE, the only way libpq 15 tells
// a SQLSTATE before there is a result.
Error error_of_connect(PGconn* connection);
// The SQLSTATE inside a verbose connect message, or empty. With several hosts, the last one's.
std::string sqlstate_of_connect_message(std::string_view message);
// Location lines and SQLSTATEs left out, lines joined by "; ".
std::string readable_connect_message(std::string_view message);

// Every occurrence of `password` replaced by "***".
std::string without_password(std::string text, std::string_view password);

}  // namespace walvault::wal
