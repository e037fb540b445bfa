// LogicalReceiver: one attachment to the changes of a database, as its slot has them decoded;
// pulled by its owner.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "wal/logical_session.h"
#include "wal/walsender.h"

namespace walvault::wal {

// One message of pgoutput; proto/pgoutput.h reads it.
struct DecodedChange {
    // Where it lies in WAL; of the end of a transaction its end_lsn. 0 where the server does not
    // say, and not in ascending order: transactions come in the order of their commits.
    Lsn lsn;
    WallTime sent_at;  // server's clock
    ByteSpan data;     // a view into `message`
    CopyMessage message;
};
// The server said, at `sent_at`, that it has decoded everything up to `decoded_lsn` and sent what
// there was. Where no transaction is open or unsaved at the caller, that position may be
// acknowledged: an idle database lets go of its WAL in no other way. Where `reply_requested`, soon:
// a server that shuts down waits for it.
struct DecodedPosition {
    Lsn decoded_lsn;
    WallTime sent_at;
    bool reply_requested = false;
};
// A clean shutdown of the server.
struct DecodingEnded {};
using LogicalEvent = std::variant<DecodedChange, DecodedPosition, DecodingEnded>;

struct LogicalIdentity {
    SystemIdentity system;
    int server_version_num = 0;
    std::string database;
    std::string server_encoding;  // SQL_ASCII: names and values are bytes of no encoding
    unsigned protocol = 0;        // of pgoutput, that start() asks for
    std::chrono::milliseconds wal_sender_timeout{60000};  // zero: none
    ServerAddress address;
};

// Why a call failed, as far as it is about the slot and what it publishes.
enum class LogicalTrouble {
    none,                 // another error, or no error
    slot_missing,         // there is none of that name: WAL from its position on is not kept for us
    slot_lost,            // the server has invalidated it or removed its WAL
    slot_in_use,          // by another session
    slot_unsuitable,      // physical, of another database, or of another plug-in
    publication_missing,  // at the position that is decoded, whatever there is now: only a new slot
                          // helps
    wal_level_too_low,
    connection_lost,  // or the server ended the session
};

class LogicalReceiver {
public:
    struct Options {
        DatabaseOptions database;
        std::string slot;
        std::vector<std::string> publications;
        bool streaming =
            true;  // large transactions while they run; else the server keeps them on its disk
        bool two_phase = false;  // only if the slot was made so
        // How often the server is asked for its position when nothing arrives.
        std::chrono::milliseconds ask_interval{5000};
        std::chrono::milliseconds status_interval{1000};
    };
    // Connects and identifies; streams nothing yet. Errors as connect_to_database.
    static Task<Result<std::unique_ptr<LogicalReceiver>>> attach(Options options,
                                                                 const Clock& clock);
    virtual ~LogicalReceiver() = default;

    virtual const LogicalIdentity& identity() const = 0;

    // Starts after the transactions that end at or before `start`. The server forwards a start
    // before the slot's confirmed_flush_lsn to it, and skips what lies between it and a later
    // start, both without a word: compare first (LogicalSlot). Errors, with trouble(): not_found
    // (slot), unusable (slot lost), busy (slot in use), refused (wal_level, unsuitable slot).
    virtual Task<Result<>> start(Lsn start) = 0;
    // The next event. Sends status updates when they are due, and answers keepalives that ask,
    // while the caller waits here or takes events. Errors: corrupt (unknown replication message),
    // unavailable (connection lost, silent for 2 × wal_sender_timeout after it was asked), unusable
    // (slot lost meanwhile), not_found (a publication; 14 to 17: 18 leaves it out and says
    // nothing), and what decoding fails with.
    virtual Task<Result<LogicalEvent>> next() = 0;
    // The same without waiting: nothing where no message is complete in memory, or the stream has
    // ended; then next() is to be asked. Cheaper, and no coroutine.
    virtual Result<std::optional<LogicalEvent>> poll() = 0;
    // What may be told to the server as stored: transactions that end at or before it are never
    // sent again. Never moves back; a position that neither start() nor the server has named on
    // this connection waits until it has. Sends a status update at once if it moved and `urgent`,
    // else with the next one due.
    virtual Task<Result<>> acknowledge(Lsn stored_lsn, bool urgent) = 0;
    // Of the last call that failed.
    virtual LogicalTrouble trouble() const = 0;
    // From anywhere on the loop: pending next() returns cancelled.
    virtual void close() = 0;
};

std::string_view to_string(LogicalTrouble trouble);

}  // namespace walvault::wal
