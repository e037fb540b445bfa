// Receiver: one attachment to a server's WAL: connect, identify, slot, stream; pulled by its owner.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <variant>

#include "base/clock.h"
#include "wal/walsender.h"

namespace walvault::wal {

struct WalSlice {
    Lsn start_lsn;
    ByteSpan wal;               // a view into `message`
    Lsn server_end_lsn;         // what the server had flushed
    WallTime sent_at;           // server's clock
    std::shared_ptr<CopyMessage> message;
};
// The server said, at `sent_at`, that it had sent everything up to `server_end_lsn`.
struct ServerPosition {
    Lsn server_end_lsn;
    WallTime sent_at;
};
// The server ended the stream: a clean shutdown (no next timeline), or a timeline switch.
struct StreamEnded {
    std::optional<TimelineEnd> next;
};
using StreamEvent = std::variant<WalSlice, ServerPosition, StreamEnded>;

struct ServerIdentity {
    SystemIdentity system;
    std::uint64_t segment_bytes = 0;
    int server_version_num = 0;
    std::chrono::milliseconds wal_sender_timeout{60000};  // zero: none
    std::optional<SlotPosition> slot;  // as found, before it was created
    bool in_recovery = false;          // a standby
    ServerAddress address;             // the one of the conninfo's servers that is streamed from
};

class Receiver {
public:
    struct Options {
        std::string conninfo;
        std::string slot;  // empty: the stream uses none, and what it reads may be removed meanwhile
        std::optional<ServerAddress> only;  // of the conninfo's servers this one alone
        std::string application_name = "walvault";
        // How often the server is asked for its position when nothing arrives; the answer moves
        // "restorable until" on an idle server.
        std::chrono::milliseconds ask_interval{1000};
        std::chrono::milliseconds status_interval{1000};
        // After a little WAL arrived, how long to leave the rest in the socket: a busy server sends a
        // message for each commit, and waking for each of them takes the processor from it. Zero: never.
        std::chrono::milliseconds gather_interval{0};
        Hangup hangup;  // ends the attaching and the stream
    };
    // Connects and identifies; streams nothing yet. Errors as Connection::connect; unsupported for a
    // major this build does not know.
    static Task<Result<std::unique_ptr<Receiver>>> attach(Options options, const Clock& clock);
    virtual ~Receiver() = default;

    virtual const ServerIdentity& identity() const = 0;
    // Creates the slot with RESERVE_WAL unless it is there. Returns its position.
    virtual Task<Result<SlotPosition>> ensure_slot() = 0;
    // Drops the slot if it is there. It is this agent's own, and nobody may be using it.
    virtual Task<Result<>> drop_slot() = 0;
    // The server's history file of `timeline` >= 2. Errors: not_found.
    virtual Task<Result<std::string>> timeline_history(TimelineId timeline) = 0;
    // Starts streaming from exactly `start`. Errors: forked if `start` on `timeline` is not in the
    // server's history; unusable if the server invalidated the slot.
    virtual Task<Result<>> start(Lsn start, TimelineId timeline) = 0;
    // The next event. WAL is contiguous: each slice starts where the one before ended (the first at
    // `start`). Sends status updates when they are due, and answers keepalives that ask, also while the
    // caller waits here. Errors: corrupt (not contiguous, unknown message), unavailable (connection
    // lost, nothing for 2 × wal_sender_timeout), gap (58P01: the server has removed that WAL).
    virtual Task<Result<StreamEvent>> next() = 0;
    // The next event where it is already here; nothing where next() would wait. What is due is sent as far
    // as the socket takes it now. Does not block. Errors as next().
    virtual Result<std::optional<StreamEvent>> poll() = 0;
    // What may be told to the server as written and flushed. Sends a status update at once if it moved
    // and `urgent`, else with the next one due. Never moves back.
    virtual Task<Result<>> acknowledge(Lsn flushed_lsn, bool urgent) = 0;
    // Urgently and without waiting. False where the socket does not take it now, or is gone: then
    // acknowledge() is to be called too.
    virtual bool acknowledge_at_once(Lsn flushed_lsn) = 0;
    // Options::gather_interval from now on.
    virtual void set_gather_interval(std::chrono::milliseconds interval) = 0;
    // Ends the stream cleanly (CopyDone), bounded by one second, and closes.
    virtual Task<> stop() = 0;
    // From anywhere on the loop: pending next() returns cancelled.
    virtual void close() = 0;
};

}  // namespace walvault::wal
