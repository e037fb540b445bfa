// The messages of pgoutput, PostgreSQL's logical decoding plug-in, as values (manual, 55.9);
// protocols 1 to 4.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "proto/lsn.h"

// Every string_view and span here looks into the message that was decoded, or into memory of the
// Decoder: it is good until the next decode(), and while the bytes of the message live. Nothing is
// copied. Names are in the connection's client_encoding; texts hold any bytes but NUL, in a
// SQL_ASCII database of no encoding at all.
namespace walvault::pgoutput {

using Oid = std::uint32_t;

enum class ValueKind : std::uint8_t {
    null,
    unchanged,  // TOASTed and not touched by the UPDATE; the server does not send it. Never a null
    text,       // as the type's output function wrote it under the session's settings
    binary,     // as its send function did; comes only where `binary` was asked for
};
struct Value {
    ValueKind kind = ValueKind::null;
    std::string_view bytes;  // of text and binary
};
// The columns of the Relation in force, in its order; a difference in their number is for the
// caller to refuse.
using Tuple = std::span<const Value>;

struct Begin {
    Lsn commit_lsn;  // of the commit record; the Commit repeats it
    WallTime committed_at;
    Xid xid = 0;
};
struct Commit {
    Lsn commit_lsn;
    Lsn end_lsn;  // behind the commit record: the unit of acknowledgement
    WallTime committed_at;
};
// The transaction was replayed here from another server.
struct ReplicationOrigin {
    Lsn commit_lsn;  // there
    std::string_view name;
};

struct Column {
    bool in_key = false;  // of the replica identity
    std::string_view name;
    Oid type = 0;
    std::int32_t type_modifier = -1;
};
enum class ReplicaIdentity : char { by_default = 'd', nothing = 'n', full = 'f', index = 'i' };
// Comes before the first change of the relation in a session, and again after it, or its
// publication, changed. Inside of stream blocks, where it comes again, it is in force for that
// transaction alone, and for all once that is committed: it may have altered the table.
struct Relation {
    Xid xid = 0;
    Oid oid = 0;
    std::string_view schema;  // empty: pg_catalog
    std::string_view name;
    ReplicaIdentity identity = ReplicaIdentity::by_default;
    std::span<const Column>
        columns;  // published ones; no dropped ones; generated ones only from 18 on, if asked
};
// The name of a type that is not built in.
struct Type {
    Xid xid = 0;
    Oid oid = 0;
    std::string_view schema;
    std::string_view name;
};

// `xid` of a change: of the subtransaction that made it, inside a stream block; else 0, see Begin.
struct Insert {
    Xid xid = 0;
    Oid relation = 0;
    Tuple row;
};
enum class OldRow : std::uint8_t {
    none,  // the key did not change, and the identity is not FULL
    key,   // columns outside of the replica identity are null
    full,  // REPLICA IDENTITY FULL: the whole row, TOASTed values included
};
struct Update {
    Xid xid = 0;
    Oid relation = 0;
    OldRow old_kind = OldRow::none;
    Tuple old_row;  // empty for OldRow::none
    Tuple row;
};
struct Delete {
    Xid xid = 0;
    Oid relation = 0;
    OldRow old_kind = OldRow::key;  // key or full
    Tuple old_row;
};
struct Truncate {
    Xid xid = 0;
    bool cascade = false;
    bool restart_identity = false;
    std::span<const Oid> relations;  // published ones
};
// pg_logical_emit_message. One that is not transactional comes at once, outside of every
// transaction.
struct Message {
    // Inside a stream block that of the whole transaction, not of a subtransaction: a message of a
    // savepoint that was rolled back is not told by it.
    Xid xid = 0;
    bool transactional = false;
    Lsn lsn;
    std::string_view prefix;
    std::string_view content;
};

// Between StreamStart and StreamStop lie changes of one transaction that is not over; blocks of
// several transactions follow each other in any order, and a Begin or a StreamCommit of another may
// lie between.
struct StreamStart {
    Xid xid = 0;
    bool first = false;  // of this transaction, since the slot's start
};
struct StreamStop {};
struct StreamCommit {
    Xid xid = 0;
    Lsn commit_lsn;
    Lsn end_lsn;
    WallTime committed_at;
};
// What `subxid` changed is void; the whole transaction where it is `xid` itself. Aborts of further
// subtransactions below it come apart.
struct StreamAbort {
    Xid xid = 0;
    Xid subxid = 0;
    std::optional<Lsn> abort_lsn;  // told by protocol 4 with streaming = parallel
    WallTime aborted_at{};         // there too
};

// Changes between BeginPrepare and Prepare, or streamed ones before StreamPrepare, are held back
// for the CommitPrepared or RollbackPrepared with the same gid and xid; that may come in a later
// session, and after a slot was made between, without the other.
struct BeginPrepare {
    Lsn prepare_lsn;
    Lsn end_lsn;
    WallTime prepared_at;
    Xid xid = 0;
    std::string_view gid;
};
struct Prepare {
    Lsn prepare_lsn;
    Lsn end_lsn;
    WallTime prepared_at;
    Xid xid = 0;
    std::string_view gid;
};
struct CommitPrepared {
    Lsn commit_lsn;
    Lsn end_lsn;
    WallTime committed_at;
    Xid xid = 0;
    std::string_view gid;
};
struct RollbackPrepared {
    Lsn prepare_end_lsn;
    Lsn end_lsn;
    WallTime prepared_at;
    WallTime rolled_back_at;
    Xid xid = 0;
    std::string_view gid;
};
struct StreamPrepare {
    Lsn prepare_lsn;
    Lsn end_lsn;
    WallTime prepared_at;
    Xid xid = 0;
    std::string_view gid;
};

using AnyMessage =
    std::variant<Begin, Commit, ReplicationOrigin, Relation, Type, Insert, Update, Delete, Truncate,
                 Message, StreamStart, StreamStop, StreamCommit, StreamAbort, BeginPrepare, Prepare,
                 CommitPrepared, RollbackPrepared, StreamPrepare>;

// One session's messages, in the order in which they came. Whether a message is led by an xid
// depends on the stream block that it is in, so a new session needs a new Decoder. Knows nothing of
// relations.
class Decoder {
public:
    // The payload of one XLogData. Work and memory are bounded by its size. Errors: corrupt for an
    // unknown type, a length that does not fit, unknown flags, or a message that may not stand here
    // (a change outside of a transaction, a block inside a block); the session is of no use then.
    Result<AnyMessage> decode(ByteSpan message);

    // Of the stream block that the next message is in; 0 outside.
    Xid stream_xid() const { return stream_xid_; }
    bool in_transaction() const { return state_ != State::outside; }

private:
    enum class State : std::uint8_t { outside, transaction, prepared_transaction, stream };
    Result<> check_place(char type) const;
    void move_on(char type, const AnyMessage& message);

    State state_ = State::outside;
    Xid stream_xid_ = 0;
    // What the spans of a message look into.
    struct Lists {
        std::vector<Value> row;
        std::vector<Value> old_row;
        std::vector<Column> columns;
        std::vector<Oid> oids;
    } lists_;
};

}  // namespace walvault::pgoutput
