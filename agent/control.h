// The agent's HTTP side: GET on loopback and on a unix socket, changes on the socket only; and its
// client.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/asio.h"

namespace walvault::agent {

struct HttpRequest {
    std::string method;
    std::string path;
    std::string body;
    bool from_socket = false;  // came over the unix socket
};
struct HttpResponse {
    unsigned status = 200;
    std::string content_type = "application/json";
    std::string body;
};

// Beast on the loop. At most 32 connections, 8 KiB of headers, 64 KiB of body, 10 s for a request.
class HttpServer {
public:
    using Handler = std::function<Task<HttpResponse>(HttpRequest)>;
    struct Options {
        std::string socket;  // empty: none. Mode 0600; an old socket nobody listens on is replaced.
        std::string address;
        unsigned port = 0;      // 0: no TCP listener
        bool any_port = false;  // a TCP listener on a port the system chooses
        std::chrono::milliseconds request_timeout{
            10'000};  // to send a request, and to take the answer
    };
    // Over TCP only GET, and only with a Host header that names loopback: a page in a browser that
    // had its own name resolved to 127.0.0.1 is turned away. Errors: busy if the port or the socket
    // is in use; refused if the socket's path is another kind of file; invalid_argument if
    // `address` is not loopback.
    static Result<std::unique_ptr<HttpServer>> listen(asio::any_io_executor executor,
                                                      Options options, Handler handler);
    virtual ~HttpServer() = default;
    virtual unsigned port() const = 0;  // as bound
    // Closes listeners and connections; the returned task ends when none is left.
    virtual Task<> stop() = 0;
};

// {"code":…,"message":…,"hint":…}, with "origin":"server" where it is; and the same Error again.
nlohmann::ordered_json json_of(const Error& error);
Error error_of(const nlohmann::json& error);
// {"error":{…}}; call_agent makes the same Error of it.
HttpResponse http_error(unsigned status, const Error& error);

// Whether somebody listens on `socket`; only a try to send shows whether he answers.
bool agent_listens(const std::string& socket);

// Blocking, for one-shot commands. Errors: unavailable (no agent listens there), or what the agent
// answered (its error object becomes the Error again).
Result<std::string> call_agent(const std::string& socket, const std::string& method,
                               const std::string& path, const std::string& body = {});

}  // namespace walvault::agent
