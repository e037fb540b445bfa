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

Task<> converse(const wal::DatabaseOptions& options,
                const std::function<Task<Result<>>(wal::Connection&)>& talk, Result<>& result) {
    auto session = co_await wal::connect_to_database(options, wal::Connection::Mode::sql);
    if (!session) {
        result = fail(session.error());
        co_return;
    }
    result = co_await talk(*session->connection);
}

template <class Options>
Result<> call(const Options& options, const std::function<Task<Result<>>(wal::Connection&)>& talk) {
    asio::io_context loop(1);
    Result<> result;
    asio::co_spawn(loop, converse(options, talk, result), [](std::exception_ptr failed) {
        if (failed) std::terminate();
    });
    loop.run();
    return result;
}

}  // namespace

Result<> call_server(const wal::Connection::Options& options,
                     std::function<Task<Result<>>(wal::Connection&)> talk) {
    return call(options, talk);
}

Result<> call_database(const wal::DatabaseOptions& options,
                       std::function<Task<Result<>>(wal::Connection&)> talk) {
    return call(options, talk);
}

}  // namespace walvault::agent
