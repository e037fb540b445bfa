#include "agent/server_call.h"

#include <exception>

namespace walvault::agent {
namespace {

Task<> converse(const ServerConfig& server, wal::Connection::Mode mode,
                const std::function<Task<Result<>>(wal::Connection&)>& talk, Result<>& result) {
    wal::Connection::Options options;
    options.conninfo = server.conninfo;
    options.mode = mode;
    auto connection = co_await wal::Connection::connect(std::move(options));
    if (!connection) {
        result = fail(connection.error());
        co_return;
    }
    result = co_await talk(**connection);
}

}  // namespace

Result<> call_server(const ServerConfig& server, wal::Connection::Mode mode,
                     std::function<Task<Result<>>(wal::Connection&)> talk) {
    asio::io_context loop(1);
    Result<> result;
    asio::co_spawn(loop, converse(server, mode, talk, result), [](std::exception_ptr failed) {
        if (failed) std::terminate();
    });
    loop.run();
    return result;
}

}  // namespace walvault::agent
