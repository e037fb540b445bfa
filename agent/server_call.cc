#include "agent/server_call.h"

#include <exception>

namespace walvault::agent {
namespace {

Task<> converse(const wal::Connection::Options& options,
                const std::function<Task<Result<>>(wal::Connection&)>& talk, Result<>& result) {
    auto connection = co_await wal::Connection::connect(options);
    if (!connection) {
        result = fail(connection.error());
        co_return;
    }
    result = co_await talk(**connection);
}

}  // namespace

Result<> call_server(const wal::Connection::Options& options,
                     std::function<Task<Result<>>(wal::Connection&)> talk) {
    asio::io_context loop(1);
    Result<> result;
    asio::co_spawn(loop, converse(options, talk, result), [](std::exception_ptr failed) {
        if (failed) std::terminate();
    });
    loop.run();
    return result;
}

}  // namespace walvault::agent
