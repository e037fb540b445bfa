// What one session of JournalCapture holds: from attaching to the loss of the connection.
#pragma once

#include "agent/journal_capture.h"

namespace walvault::agent {

// What the catalogue says: an ordinary connection while it is needed, types as they are asked for.
struct JournalCapture::Catalogue {
    std::unique_ptr<wal::Connection> sql;
    std::map<std::uint32_t, std::string> type_names;
};

struct JournalCapture::Session {
    Session(JournalCapture& capture);

    std::unique_ptr<wal::LogicalReceiver> receiver;
    pgoutput::Decoder decoder;
    pgoutput::AnyMessage message;  // the last one, and where it lies
    std::optional<wal::DecodedChange> change;
    std::optional<JournalRouter> router;
    JournalStaging staging;
    TaskGroup tasks;
    Event changed;  // something is to be flushed, or it is over
    bool over = false;
    bool server_ended = false;
    SteadyTime pending_since{};  // of what the router holds
    SteadyTime last_quiet_at{};
    Lsn began_lsn;     // the journal's end when the session began
    Lsn quiet_lsn;     // nothing happened between the last transaction and this
    Lsn taken_lsn;     // end of the last transaction taken
    Lsn flushing_lsn;  // given to the pipeline
    WallTime last_commit_at{};
    std::uint64_t counted_transactions = 0;
    std::uint64_t counted_changes = 0;

    // The table that is being read, so that it can give way.
    wal::TableSnapshot* reading = nullptr;
    // One for the stream and one for snapshots, which ask at the same time.
    Catalogue streamed;
    Catalogue read;
};

}  // namespace walvault::agent
