// Server: PostgreSQL as a receiver of its WAL sees it: real WAL, timelines, slots, recycled
// segments.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event.h"
#include "proto/timeline_history.h"
#include "tests/simulation/random.h"
#include "tests/support/wal_builder.h"
#include "wal/receiver.h"

namespace walvault::simulation {

struct Commit {
    Lsn start_lsn;
    Lsn end_lsn;
    Xid xid = 0;
    WallTime at;
};

// One past of a cluster, from its first byte on: the only thing that bytes are compared with.
// Servers share it until one of them leaves it: by a promotion, or because its disk was rolled
// back.
class Branch {
public:
    struct Record {
        Lsn start_lsn;
        Lsn end_lsn;  // aligned: where the next one may begin
    };
    Branch(std::uint16_t page_magic, unsigned own_number)
        : number(own_number), builder_(Lsn{WalBuilder::kSegmentBytes}, 1, page_magic) {}
    // What `parent` is up to the end of its record `last`, and goes on differently.
    Branch(const Branch& parent, std::size_t last, unsigned own_number);

    void add_rows(Random& random);
    void add_commit(WallTime at);
    void add_switch();
    // Loses what was not flushed; a record that was in part gets its rest overwritten.
    void recover(Lsn flushed);
    void begin_timeline(TimelineId next);

    Lsn start() const { return builder_.start(); }
    Lsn end() const { return builder_.end(); }
    ByteSpan bytes(Lsn from, Lsn to) const;
    // The last record that ends at or before `lsn`; nothing before the first.
    std::optional<std::size_t> record_before(Lsn lsn) const;
    const std::vector<Record>& records() const { return records_; }
    const std::vector<Commit>& commits() const { return commits_; }

    unsigned number;
    TimelineId timeline = 1;
    std::vector<TimelineSwitch> switches;
    std::string history_file;

private:
    void note(Lsn start);
    void cut_records(Lsn end);

    WalBuilder builder_;
    std::vector<Record> records_;
    std::vector<Commit> commits_;
    Xid next_xid_ = 1000;
};

struct Server;

// A replication connection, seen from the server.
struct Session {
    explicit Session(asio::any_io_executor executor) : changed(std::move(executor)) {}
    Server* server = nullptr;
    std::shared_ptr<const Branch> branch;  // of what is streamed
    Lsn from_lsn, sent_lsn;
    Lsn acknowledged_lsn;
    std::optional<wal::TimelineEnd> ends;  // of a timeline that is not the server's any more
    TimelineId timeline = 0;
    bool is_streaming = false;
    bool is_broken = false;
    bool ends_cleanly = false;  // the server shuts down when everything is sent
    std::vector<wal::ServerPosition> keepalives;
    Event changed;
};

struct Server {
    struct Slot {
        std::optional<Lsn> restart_lsn;
        std::optional<Lsn> saved_lsn;  // what a crash of the server goes back to
        bool is_lost = false;
    };

    void flush(Random& random, bool whole);
    void checkpoint(Random& random);
    // max_slot_wal_keep_size: the slot is given up, and the segments before the checkpoint go.
    void lose_slot();
    void crash();
    void shut_down();
    void follow(std::shared_ptr<Branch> next);
    void promote(unsigned number, TimelineId timeline);
    // The disk is again as it was after the record `last`.
    void roll_back(std::size_t last, unsigned number);
    void break_sessions();
    void wake_sessions();
    void join(const std::shared_ptr<Session>& session) { sessions.push_back(session); }
    // First byte on the server's disk for this timeline.
    Lsn oldest_lsn(TimelineId of_timeline) const;

    unsigned number = 0;
    std::shared_ptr<Branch> branch;
    Lsn flushed_lsn;
    Lsn redo_lsn;
    Lsn kept_from_lsn;
    bool is_up = true;
    bool in_recovery = false;
    bool refuses_lost_slots = false;  // as 18 does; before it, such a slot comes back to life
    std::optional<Slot> slot;
    std::vector<std::weak_ptr<Session>> sessions;
};

inline Lsn segment_of(Lsn lsn) { return lsn.round_down(WalBuilder::kSegmentBytes); }

}  // namespace walvault::simulation
