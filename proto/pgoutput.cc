#include "proto/pgoutput.h"

#include <string>

namespace walvault::pgoutput {
namespace {

std::string type_text(char type) {
    const auto byte = static_cast<unsigned char>(type);
    if (byte > 0x20 && byte < 0x7F) return std::string("'") + type + "'";
    return std::to_string(static_cast<unsigned>(byte));
}

// A cursor over one message behind its type. The first thing that does not fit is kept; all that is
// read after it is empty.
class Reading {
public:
    explicit Reading(ByteSpan message) : bytes_(message), in_(message) { in_.bytes(1); }

    bool ok() const { return in_.ok() && wrong_.empty(); }
    void refuse(std::string what) {
        if (ok()) wrong_ = std::move(what);
    }

    std::uint8_t byte() { return in_.be<std::uint8_t>(); }
    std::uint16_t be16() { return in_.be<std::uint16_t>(); }
    std::uint32_t be32() { return in_.be<std::uint32_t>(); }
    Lsn lsn() { return Lsn{in_.be<std::uint64_t>()}; }
    WallTime time() {
        // Addition in unsigned arithmetic: a hostile time may wrap, it may not overflow.
        const auto micros =
            in_.be<std::uint64_t>() + static_cast<std::uint64_t>(kPostgresEpochMicros);
        return WallTime(Micros(static_cast<std::int64_t>(micros)));
    }
    Xid xid() {
        const Xid xid = be32();
        if (xid == 0) refuse("a transaction with the number 0");
        return xid;
    }
    std::string_view name() {
        const std::string_view rest = as_text(bytes_.subspan(in_.position()));
        const std::size_t end = rest.find('\0');
        if (end == std::string_view::npos) refuse("a name that does not end");
        if (!ok()) return {};
        in_.bytes(end + 1);
        return rest.substr(0, end);
    }
    std::string_view sized_text(const char* what) {
        const auto size = be32();
        return has_room(size, 1, what) ? as_text(in_.bytes(size)) : std::string_view();
    }
    void no_flags() {
        if (const auto flags = byte(); flags != 0) refuse("unknown flags " + std::to_string(flags));
    }
    // Refuses a count of things that take `each` bytes at least and have no room: what is counted
    // is allocated after this.
    bool has_room(std::uint64_t count, std::uint64_t each, const char* things) {
        if (ok() && count * each > in_.remaining())
            refuse(std::to_string(count) + " " + things + " where " +
                   std::to_string(in_.remaining()) + " bytes are left");
        return ok();
    }
    Value value(unsigned column);
    Tuple tuple(std::vector<Value>& values);
    Column column();
    std::size_t remaining() const { return in_.remaining(); }

    // The whole message was read, and nothing else is in it.
    Result<> finish() const;

private:
    ByteSpan bytes_;
    ByteReader in_;
    std::string wrong_;
};

Value Reading::value(unsigned column) {
    Value value;
    switch (const char kind = static_cast<char>(byte()); kind) {
        case 'n':
            break;
        case 'u':
            value.kind = ValueKind::unchanged;
            break;
        case 't':
        case 'b':
            value.kind = kind == 't' ? ValueKind::text : ValueKind::binary;
            value.bytes = sized_text("bytes of a value");
            break;
        default:
            refuse("column " + std::to_string(column + 1) + " of unknown kind " + type_text(kind));
    }
    return value;
}

Tuple Reading::tuple(std::vector<Value>& values) {
    values.clear();
    const unsigned count = be16();
    if (!has_room(count, 1, "columns")) return {};
    for (unsigned i = 0; i < count && ok(); ++i)
        values.push_back(value(i));
    return values;
}

Column Reading::column() {
    Column column;
    const auto flags = byte();
    if (flags > 1) refuse("unknown flags " + std::to_string(flags) + " of a column");
    column.in_key = flags == 1;
    column.name = name();
    column.type = be32();
    column.type_modifier = static_cast<std::int32_t>(be32());
    return column;
}

Result<> Reading::finish() const {
    if (ok() && in_.remaining() == 0) return {};
    const std::string what = "a pgoutput message " + type_text(static_cast<char>(bytes_[0])) +
                             " of " + std::to_string(bytes_.size()) + " bytes ";
    if (!wrong_.empty()) return fail(Errc::corrupt, what + "holds " + wrong_);
    if (!in_.ok()) return fail(Errc::corrupt, what + "is cut off");
    return fail(Errc::corrupt, what + "has " + std::to_string(in_.remaining()) + " too many");
}

// Below, initializers in braces are read from left to right, as the message is.

Begin read_begin(Reading& in) { return {in.lsn(), in.time(), in.xid()}; }

Commit read_commit(Reading& in) {
    in.no_flags();
    return {in.lsn(), in.lsn(), in.time()};
}

ReplicationOrigin read_origin(Reading& in) { return {in.lsn(), in.name()}; }

Relation read_relation(Reading& in, Xid xid, std::vector<Column>& columns) {
    Relation relation;
    relation.xid = xid;
    relation.oid = in.be32();
    relation.schema = in.name();
    relation.name = in.name();
    const char identity = static_cast<char>(in.byte());
    if (in.ok() && std::string_view("dnfi").find(identity) == std::string_view::npos)
        in.refuse("an unknown replica identity " + type_text(identity));
    relation.identity = static_cast<ReplicaIdentity>(identity);
    columns.clear();
    const unsigned count = in.be16();
    constexpr std::uint64_t kColumnBytesMin = 10;
    if (!in.has_room(count, kColumnBytesMin, "columns")) return relation;
    for (unsigned i = 0; i < count && in.ok(); ++i)
        columns.push_back(in.column());
    relation.columns = columns;
    return relation;
}

Type read_type(Reading& in, Xid xid) { return {xid, in.be32(), in.name(), in.name()}; }

void expect_new_row(Reading& in, char found) {
    if (in.ok() && found != 'N')
        in.refuse("a row of unknown kind " + type_text(found) + " where the new one has to be");
}

Insert read_insert(Reading& in, Xid xid, std::vector<Value>& row) {
    Insert insert;
    insert.xid = xid;
    insert.relation = in.be32();
    expect_new_row(in, static_cast<char>(in.byte()));
    insert.row = in.tuple(row);
    return insert;
}

Update read_update(Reading& in, Xid xid, std::vector<Value>& row, std::vector<Value>& old_row) {
    Update update;
    update.xid = xid;
    update.relation = in.be32();
    char kind = static_cast<char>(in.byte());
    if (kind == 'K' || kind == 'O') {
        update.old_kind = kind == 'K' ? OldRow::key : OldRow::full;
        update.old_row = in.tuple(old_row);
        kind = static_cast<char>(in.byte());
    }
    expect_new_row(in, kind);
    update.row = in.tuple(row);
    return update;
}

Delete read_delete(Reading& in, Xid xid, std::vector<Value>& old_row) {
    Delete gone;
    gone.xid = xid;
    gone.relation = in.be32();
    const char kind = static_cast<char>(in.byte());
    if (in.ok() && kind != 'K' && kind != 'O')
        in.refuse("a row of unknown kind " + type_text(kind) + " where the old one has to be");
    gone.old_kind = kind == 'K' ? OldRow::key : OldRow::full;
    gone.old_row = in.tuple(old_row);
    return gone;
}

Truncate read_truncate(Reading& in, Xid xid, std::vector<Oid>& oids) {
    Truncate truncate;
    truncate.xid = xid;
    const auto count = in.be32();
    const auto flags = in.byte();
    if (flags > 3) in.refuse("unknown flags " + std::to_string(flags));
    truncate.cascade = (flags & 1) != 0;
    truncate.restart_identity = (flags & 2) != 0;
    oids.clear();
    if (!in.has_room(count, sizeof(Oid), "relations")) return truncate;
    for (std::uint32_t i = 0; i < count; ++i)
        oids.push_back(in.be32());
    truncate.relations = oids;
    return truncate;
}

Message read_message(Reading& in, Xid xid) {
    Message message;
    message.xid = xid;
    const auto flags = in.byte();
    if (flags > 1) in.refuse("unknown flags " + std::to_string(flags));
    message.transactional = flags == 1;
    message.lsn = in.lsn();
    message.prefix = in.name();
    message.content = in.sized_text("bytes of a message");
    return message;
}

StreamStart read_stream_start(Reading& in) {
    StreamStart start;
    start.xid = in.xid();
    const auto first = in.byte();
    if (first > 1) in.refuse("unknown flags " + std::to_string(first));
    start.first = first == 1;
    return start;
}

StreamCommit read_stream_commit(Reading& in) {
    StreamCommit commit;
    commit.xid = in.xid();
    in.no_flags();
    commit.commit_lsn = in.lsn();
    commit.end_lsn = in.lsn();
    commit.committed_at = in.time();
    return commit;
}

StreamAbort read_stream_abort(Reading& in) {
    StreamAbort abort;
    abort.xid = in.xid();
    abort.subxid = in.xid();
    if (!in.ok() || in.remaining() == 0) return abort;
    abort.abort_lsn = in.lsn();
    abort.aborted_at = in.time();
    return abort;
}

template <class Prepared>
Prepared read_prepared(Reading& in) {
    return {in.lsn(), in.lsn(), in.time(), in.xid(), in.name()};
}

template <class Prepared>
Prepared read_flagged_prepared(Reading& in) {
    in.no_flags();
    return read_prepared<Prepared>(in);
}

RollbackPrepared read_rollback_prepared(Reading& in) {
    in.no_flags();
    return {in.lsn(), in.lsn(), in.time(), in.time(), in.xid(), in.name()};
}

// These lie in a transaction or in a stream block, and in a block are led by an xid.
bool is_change(char type) {
    return std::string_view("RYIUDTM").find(type) != std::string_view::npos;
}

template <class Lists>
AnyMessage read_change(char type, Reading& in, Xid xid, Lists& lists) {
    switch (type) {
        case 'R':
            return read_relation(in, xid, lists.columns);
        case 'Y':
            return read_type(in, xid);
        case 'I':
            return read_insert(in, xid, lists.row);
        case 'U':
            return read_update(in, xid, lists.row, lists.old_row);
        case 'D':
            return read_delete(in, xid, lists.old_row);
        case 'T':
            return read_truncate(in, xid, lists.oids);
        default:
            return read_message(in, xid);
    }
}

bool is_known(char type) {
    return is_change(type) || std::string_view("BCOSEcAbPKrp").find(type) != std::string_view::npos;
}

AnyMessage read_other(char type, Reading& in) {
    switch (type) {
        case 'B':
            return read_begin(in);
        case 'C':
            return read_commit(in);
        case 'O':
            return read_origin(in);
        case 'S':
            return read_stream_start(in);
        case 'c':
            return read_stream_commit(in);
        case 'A':
            return read_stream_abort(in);
        case 'b':
            return read_prepared<BeginPrepare>(in);
        case 'P':
            return read_flagged_prepared<Prepare>(in);
        case 'K':
            return read_flagged_prepared<CommitPrepared>(in);
        case 'r':
            return read_rollback_prepared(in);
        case 'p':
            return read_flagged_prepared<StreamPrepare>(in);
        default:
            return StreamStop{};
    }
}

}  // namespace

Result<> Decoder::check_place(char type) const {
    bool fits = state_ == State::outside;
    if (is_change(type) || type == 'O') fits = state_ != State::outside || type == 'M';
    if (type == 'C') fits = state_ == State::transaction;
    if (type == 'P') fits = state_ == State::prepared_transaction;
    if (type == 'E') fits = state_ == State::stream;
    if (fits) return {};
    const char* place = "outside of a transaction";
    if (state_ == State::transaction) place = "in a transaction";
    if (state_ == State::prepared_transaction) place = "in a transaction to be prepared";
    if (state_ == State::stream) place = "in a stream block";
    return fail(Errc::corrupt, "a pgoutput message " + type_text(type) + " stands " + place +
                                   ", where it may not");
}

void Decoder::move_on(char type, const AnyMessage& message) {
    if (type == 'B') state_ = State::transaction;
    if (type == 'b') state_ = State::prepared_transaction;
    if (type == 'C' || type == 'P' || type == 'E') state_ = State::outside;
    if (type == 'E') stream_xid_ = 0;
    if (const auto* start = std::get_if<StreamStart>(&message)) {
        state_ = State::stream;
        stream_xid_ = start->xid;
    }
}

Result<AnyMessage> Decoder::decode(ByteSpan message) {
    if (message.empty()) return fail(Errc::corrupt, "an empty pgoutput message");
    const char type = static_cast<char>(message[0]);
    if (!is_known(type))
        return fail(Errc::corrupt, "a pgoutput message of unknown type " + type_text(type));
    WV_CHECK(check_place(type));
    Reading in(message);
    const bool change = is_change(type);
    const Xid xid = state_ == State::stream && change ? in.xid() : 0;
    AnyMessage read = change ? read_change(type, in, xid, lists_) : read_other(type, in);
    WV_CHECK(in.finish());
    move_on(type, read);
    return read;
}

}  // namespace walvault::pgoutput
