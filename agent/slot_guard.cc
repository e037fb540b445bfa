#include "agent/slot_guard.h"

#include "agent/agent_state.h"
#include "agent/slot_governor.h"
#include "base/log.h"
#include "wal/server_facts.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

constexpr std::chrono::seconds kLookEvery{5};
constexpr std::chrono::seconds kPatience{30};  // for all that one look asks

bool is_the_disks(const Error& error) {
    return error.code == Errc::no_space || error.code == Errc::io;
}

class Guard {
public:
    Guard(const OpenRepository& open, const ServerConfig& server, Error why)
        : open_(open), server_(server), outcome_(fail(std::move(why))) {}

    Result<std::unique_ptr<storage::Repository>> run() {
        log::error("store.not_opened", outcome_.error().message,
                   {{"hint", "it is tried again, and the slot is watched meanwhile"}});
        signals_.async_wait([this](boost::system::error_code error, int) {
            if (error) return;
            is_stopped_ = true;
            outcome_ = fail(Errc::cancelled, "the agent was told to end");
            changed_.notify();
            hangup_.hang_up();
        });
        asio::co_spawn(loop_, watch(), [this](std::exception_ptr failed) {
            if (failed) std::terminate();
            signals_.cancel();
        });
        loop_.run();
        return std::move(outcome_);
    }

private:
    Task<> watch() {
        while (!is_stopped_) {
            auto looked = co_await look();
            if (!looked)
                log::warn("slot.not_seen", looked.error().message, {{"slot", server_.slot}});
            notify_systemd("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=waiting for the repository");
            co_await wait_for(changed_, kLookEvery);
            if (is_stopped_) co_return;
            outcome_ = open_();
            is_stopped_ = outcome_ || !is_the_disks(outcome_.error());
        }
    }

    Task<Result<>> look() {
        // Pulled by a server that says nothing: the next look has its own.
        hangup_ = wal::Hangup();
        const wal::Silence silence(loop_.get_executor(), hangup_, kPatience);
        co_return co_await judge_slot();
    }

    Task<Result<>> judge_slot() {
        wal::Connection::Options options;
        options.conninfo = server_.conninfo;
        options.application_name = "walvault watch";
        options.hangup = hangup_;
        WV_CO_TRY(auto sql, co_await wal::Connection::connect(std::move(options)));
        WV_CO_CHECK(wal::server_version_of(*sql));
        WV_CO_TRY(wal::SlotFacts slot, co_await wal::slot_facts(*sql, server_.slot));
        SlotLook look;
        look.at = system_clock().steady_now();
        look.exists = slot.exists;
        look.retained_bytes = slot.retained_bytes;
        SlotLimits limits;
        limits.warn_bytes = server_.slot_limit_bytes;
        limits.give_up_bytes = server_.slot_give_up_bytes;
        const Verdict verdict = governor_.decide(look, limits);
        if (verdict.step != GovernorStep::give_up) co_return Result<>();
        WV_CO_CHECK(co_await wal::drop_slot_by_sql(*sql, server_.slot));
        log::error("slot.given_up", "the slot was dropped: " + verdict.reason,
                   {{"slot", server_.slot}});
        co_return Result<>();
    }

    const OpenRepository& open_;
    const ServerConfig& server_;
    Result<std::unique_ptr<storage::Repository>> outcome_;
    asio::io_context loop_{1};
    asio::signal_set signals_{loop_, SIGTERM, SIGINT};
    Event changed_{loop_.get_executor()};
    wal::Hangup hangup_;
    SlotGovernor governor_;
    bool is_stopped_ = false;
};

}  // namespace

Result<std::unique_ptr<storage::Repository>> open_and_guard_slot(const OpenRepository& open,
                                                                 const ServerConfig& server) {
    auto opened = open();
    if (opened || !is_the_disks(opened.error()) || !server.slot_give_up_bytes) return opened;
    Guard guard(open, server, std::move(opened).error());
    return guard.run();
}

}  // namespace walvault::agent
