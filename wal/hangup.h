// Hangup: ends, from outside, what waits for a server: connections, and one that is being made.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/asio.h"

namespace walvault::wal {

// Copies are the same switch. On the loop; pulled once, it stays so: a new attempt takes a new one.
class Hangup {
public:
    using Socket = asio::posix::stream_descriptor;

    Hangup() : state_(std::make_shared<State>()) {}

    // Every pending and later operation of the connections made with it returns cancelled. Does not
    // block.
    void hang_up() {
        state_->hung_up = true;
        for (const auto& watched : state_->sockets) {
            boost::system::error_code ignored;
            if (auto socket = watched.lock()) socket->cancel(ignored);
        }
        state_->sockets.clear();
    }
    bool hung_up() const { return state_->hung_up; }

    // For Connection: whoever waits for `socket` is woken, and looks at hung_up() then.
    void watch(const std::shared_ptr<Socket>& socket) {
        std::erase_if(state_->sockets, [](const auto& watched) { return watched.expired(); });
        state_->sockets.push_back(socket);
    }

private:
    struct State {
        bool hung_up = false;
        std::vector<std::weak_ptr<Socket>> sockets;
    };
    std::shared_ptr<State> state_;
};

// Pulls a switch where nothing is heard for `patience`. On the loop; over with this.
class Silence {
public:
    Silence(const asio::any_io_executor& executor, Hangup hangup,
            std::chrono::milliseconds patience)
        : timer_(std::make_shared<asio::steady_timer>(executor)),
          hangup_(std::move(hangup)),
          patience_(patience) {
        broken();
    }
    ~Silence() { timer_->cancel(); }
    Silence(const Silence&) = delete;
    Silence& operator=(const Silence&) = delete;

    // Something was heard: the time begins anew.
    void broken() {
        timer_->expires_after(patience_);
        // The handler may be queued when this is gone: it owns what it touches.
        timer_->async_wait(
            [timer = timer_, hangup = hangup_](boost::system::error_code error) mutable {
                if (!error) hangup.hang_up();
            });
    }

private:
    std::shared_ptr<asio::steady_timer> timer_;
    Hangup hangup_;
    std::chrono::milliseconds patience_;
};

}  // namespace walvault::wal
