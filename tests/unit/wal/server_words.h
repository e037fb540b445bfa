// What a server says in PostgreSQL's protocol, for one that is played on a socket.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/asio.h"

namespace walvault::wal {

using Local = asio::local::stream_protocol;

inline std::string message(char kind, const std::string& body) {
    const auto size = static_cast<std::uint32_t>(body.size() + 4);
    std::string text(1, kind);
    for (int shift = 24; shift >= 0; shift -= 8)
        text += static_cast<char>(size >> shift);
    return text + body;
}

inline std::string with_nul(const std::string& text) { return text + '\0'; }

inline const std::string kWelcome = message('R', std::string(4, '\0')) +
                                    message('S', with_nul("server_version") + with_nul("15.0")) +
                                    message('K', std::string(8, 'x')) + message('Z', "I");
inline const std::string kCopyBoth = message('W', std::string(3, '\0'));
inline const std::string kRow = message('d', "row");
inline const std::string kCompleted = message('C', with_nul("COPY 0"));

// Lets a client in and hears its START_REPLICATION.
inline Task<Local::socket> heard_client(Local::acceptor& acceptor) {
    Local::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    std::array<char, 1024> heard;
    co_await socket.async_read_some(asio::buffer(heard), asio::use_awaitable);
    co_await socket.async_write_some(asio::buffer(kWelcome), asio::use_awaitable);
    co_await socket.async_read_some(asio::buffer(heard), asio::use_awaitable);
    co_return socket;
}

}  // namespace walvault::wal
