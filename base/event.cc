#include "base/event.h"

namespace walvault {

Task<> Event::wait() {
    auto timer = timer_;
    boost::system::error_code ignored;
    co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

Task<> sleep_for(std::chrono::steady_clock::duration duration) {
    auto executor = co_await asio::this_coro::executor;
    if (timer_source != nullptr) {
        Event never(executor);
        co_await wait_for(never, duration);
        co_return;
    }
    asio::steady_timer timer(executor);
    timer.expires_after(duration);
    boost::system::error_code ignored;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

Task<> wait_for(Event& event, std::chrono::steady_clock::duration timeout) {
    if (timer_source != nullptr) {
        auto waited = std::make_shared<Event>(event);
        timer_source->notify_after(timeout, waited);
        co_await waited->wait();
        co_return;
    }
    // The alarm's handler may already be queued when this returns, so it owns what it touches.
    auto executor = co_await asio::this_coro::executor;
    auto alarm = std::make_shared<asio::steady_timer>(executor);
    alarm->expires_after(timeout);
    Event copy = event;
    alarm->async_wait([alarm, copy](boost::system::error_code error) mutable {
        if (!error) copy.notify();
    });
    co_await event.wait();
    alarm->cancel();
}

}  // namespace walvault
