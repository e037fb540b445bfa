#include "proto/pgoutput.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <list>
#include <map>
#include <string>
#include <vector>

using namespace walvault;
using namespace walvault::pgoutput;

namespace {

// A message, written part by part.
class Bytes {
public:
    explicit Bytes(std::string_view type) { text(type); }
    Bytes& text(std::string_view text) {
        append(bytes_, as_bytes(text));
        return *this;
    }
    Bytes& name(std::string_view name) {
        text(name);
        return u8(0);
    }
    Bytes& u8(std::uint8_t value) {
        bytes_.push_back(static_cast<std::byte>(value));
        return *this;
    }
    Bytes& u16(std::uint16_t value) {
        append_be(bytes_, value);
        return *this;
    }
    Bytes& u32(std::uint32_t value) {
        append_be(bytes_, value);
        return *this;
    }
    Bytes& u64(std::uint64_t value) {
        append_be(bytes_, value);
        return *this;
    }
    Bytes& value(std::string_view text, std::string_view kind = "t") {
        return this->text(kind).u32(static_cast<std::uint32_t>(text.size())).text(text);
    }
    operator ByteSpan() const { return bytes_; }

private:
    ByteBuffer bytes_;
};

Bytes begin() { return Bytes("B").u64(0x1000).u64(1).u32(700); }
Bytes commit() { return Bytes("C").u8(0).u64(0x1000).u64(0x1030).u64(1); }
Bytes stream_start(Xid xid, bool first = true) { return Bytes("S").u32(xid).u8(first ? 1 : 0); }
Bytes insert() { return Bytes("I").u32(16385).text("N").u16(1).value("1"); }

// What the next message is; its views are into `message`.
template <class T>
T decoded_in_place(Decoder& decoder, ByteSpan message) {
    auto any = decoder.decode(message);
    if (!any) FAIL(any.error().message);
    REQUIRE(std::holds_alternative<T>(*any));
    return std::get<T>(*any);
}
// The same of a temporary, which is kept.
template <class T>
T decoded(Decoder& decoder, ByteSpan message) {
    static std::list<ByteBuffer> kept;
    return decoded_in_place<T>(decoder, kept.emplace_back(message.begin(), message.end()));
}

std::string refused(Decoder& decoder, ByteSpan message) {
    auto any = decoder.decode(message);
    REQUIRE_FALSE(any);
    CHECK(any.error().code == Errc::corrupt);
    return any.error().message;
}

// A decoder that is inside of a transaction.
Decoder in_transaction() {
    Decoder decoder;
    REQUIRE(decoder.decode(begin()));
    return decoder;
}

// One message of each type that is right behind `lead`.
struct Example {
    std::vector<Bytes> lead;
    Bytes message;
};
std::vector<Example> examples() {
    return {
        {{}, begin()},
        {{begin()}, commit()},
        {{begin()}, Bytes("O").u64(5).name("origin")},
        {{begin()},
         Bytes("R")
             .u32(9)
             .name("public")
             .name("t")
             .text("d")
             .u16(2)
             .u8(1)
             .name("a")
             .u32(23)
             .u32(~0U)
             .u8(0)
             .name("b")
             .u32(25)
             .u32(7)},
        {{begin()}, Bytes("Y").u32(9).name("public").name("mood")},
        {{begin()}, insert()},
        {{begin()}, Bytes("U").u32(9).text("N").u16(2).value("1").text("u")},
        {{begin()}, Bytes("U").u32(9).text("K").u16(1).value("1").text("N").u16(1).value("2")},
        {{begin()}, Bytes("D").u32(9).text("O").u16(2).value("1").text("n")},
        {{begin()}, Bytes("T").u32(2).u8(3).u32(9).u32(10)},
        {{}, Bytes("M").u8(0).u64(77).name("prefix").u32(3).text("abc")},
        {{}, stream_start(700)},
        {{stream_start(700)}, Bytes("E")},
        {{}, Bytes("c").u32(700).u8(0).u64(1).u64(2).u64(3)},
        {{}, Bytes("A").u32(700).u32(701).u64(5).u64(6)},
        {{}, Bytes("b").u64(1).u64(2).u64(3).u32(700).name("gid")},
        {{Bytes("b").u64(1).u64(2).u64(3).u32(700).name("gid")},
         Bytes("P").u8(0).u64(1).u64(2).u64(3).u32(700).name("gid")},
        {{}, Bytes("K").u8(0).u64(1).u64(2).u64(3).u32(700).name("gid")},
        {{}, Bytes("r").u8(0).u64(1).u64(2).u64(3).u64(4).u32(700).name("gid")},
        {{}, Bytes("p").u8(0).u64(1).u64(2).u64(3).u32(700).name("gid")},
        {{stream_start(700)}, Bytes("I").u32(702).u32(9).text("N").u16(1).value("1")},
    };
}

Result<AnyMessage> decode_behind(const std::vector<Bytes>& lead, ByteSpan message) {
    Decoder decoder;
    for (const Bytes& before : lead)
        REQUIRE(decoder.decode(before));
    return decoder.decode(message);
}

// What a server sent for one session, as tests/fuzz/pgoutput_fuzz.cc takes it; rows of bulk inserts
// are left out.
ByteBuffer session_of(const std::string& name) {
    std::ifstream file(WALVAULT_PGOUTPUT_SESSIONS "/" + name, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    REQUIRE_MESSAGE(!bytes.empty(), name);
    return {as_bytes(bytes).begin(), as_bytes(bytes).end()};
}

// Calls `see(message)` for each message of a session.
template <class See>
void read_session(ByteSpan session, See see) {
    ByteReader in(session);
    Decoder decoder;
    while (in.remaining() > 0) {
        const ByteSpan bytes = in.bytes(in.be<std::uint16_t>());
        auto message = decoder.decode(bytes);
        if (!message) FAIL(message.error().message);
        see(as_text(bytes)[0], *message);
    }
    CHECK_FALSE(decoder.in_transaction());
}

}  // namespace

TEST_CASE("a transaction begins and ends with its positions and times") {
    Decoder decoder;
    const Begin begun = decoded<Begin>(decoder, Bytes("B").u64(0x1000).u64(1'000'000).u32(700));
    CHECK(begun.commit_lsn == Lsn{0x1000});
    CHECK(to_utc_text(begun.committed_at) == "2000-01-01T00:00:01.000000Z");
    CHECK(begun.xid == 700);
    CHECK(decoder.in_transaction());
    const ReplicationOrigin origin =
        decoded<ReplicationOrigin>(decoder, Bytes("O").u64(5).name("elsewhere"));
    CHECK(origin.commit_lsn == Lsn{5});
    CHECK(origin.name == "elsewhere");
    const Commit done =
        decoded<Commit>(decoder, Bytes("C").u8(0).u64(0x1000).u64(0x1030).u64(2'000'000));
    CHECK(done.commit_lsn == Lsn{0x1000});
    CHECK(done.end_lsn == Lsn{0x1030});
    CHECK(to_utc_text(done.committed_at) == "2000-01-01T00:00:02.000000Z");
    CHECK_FALSE(decoder.in_transaction());
}

TEST_CASE("a relation names its columns in order and those of its identity") {
    Decoder decoder = in_transaction();
    const Bytes message = Bytes("R")
                              .u32(16385)
                              .name("")
                              .name("a \"table\"")
                              .text("i")
                              .u16(2)
                              .u8(0)
                              .name("b")
                              .u32(25)
                              .u32(~0U)
                              .u8(1)
                              .name("\xff")
                              .u32(1700)
                              .u32(655366);
    const Relation relation = decoded<Relation>(decoder, message);
    CHECK(relation.oid == 16385);
    CHECK(relation.schema.empty());
    CHECK(relation.name == "a \"table\"");
    CHECK(relation.identity == ReplicaIdentity::index);
    REQUIRE(relation.columns.size() == 2);
    CHECK(relation.columns[0].name == "b");
    CHECK_FALSE(relation.columns[0].in_key);
    CHECK(relation.columns[0].type == 25);
    CHECK(relation.columns[0].type_modifier == -1);
    CHECK(relation.columns[1].in_key);
    CHECK(relation.columns[1].name == "\xff");
    CHECK(relation.columns[1].type_modifier == 655366);
}

TEST_CASE("a type that is not built in has a name") {
    Decoder decoder = in_transaction();
    const Type type = decoded<Type>(decoder, Bytes("Y").u32(16390).name("shop").name("mood"));
    CHECK(type.oid == 16390);
    CHECK(type.schema == "shop");
    CHECK(type.name == "mood");
}

TEST_CASE("values are null, unchanged, text or binary, and views into the message") {
    Decoder decoder = in_transaction();
    const Bytes message = Bytes("I")
                              .u32(16385)
                              .text("N")
                              .u16(5)
                              .text("n")
                              .text("u")
                              .value("")
                              .value("\xff\x01 any")
                              .value(std::string_view("\0\x01", 2), "b");
    const Insert row = decoded_in_place<Insert>(decoder, message);
    CHECK(row.relation == 16385);
    REQUIRE(row.row.size() == 5);
    CHECK(row.row[0].kind == ValueKind::null);
    CHECK(row.row[1].kind == ValueKind::unchanged);
    CHECK(row.row[2].kind == ValueKind::text);
    CHECK(row.row[2].bytes.empty());
    CHECK(row.row[3].bytes == "\xff\x01 any");
    CHECK(row.row[4].kind == ValueKind::binary);
    const ByteSpan whole = message;
    const char* first = as_text(whole).data();
    CHECK(row.row[3].bytes.data() > first);
    CHECK(row.row[3].bytes.data() < first + whole.size());
}

TEST_CASE("an update comes with the old key, with the whole old row, or with neither") {
    Decoder decoder = in_transaction();
    const Update plain =
        decoded<Update>(decoder, Bytes("U").u32(9).text("N").u16(2).value("1").text("u"));
    CHECK(plain.old_kind == OldRow::none);
    CHECK(plain.old_row.empty());
    CHECK(plain.row[1].kind == ValueKind::unchanged);
    const Bytes with_key =
        Bytes("U").u32(9).text("K").u16(2).value("1").text("n").text("N").u16(2).value("2").value(
            "x");
    const Update keyed = decoded<Update>(decoder, with_key);
    CHECK(keyed.old_kind == OldRow::key);
    REQUIRE(keyed.old_row.size() == 2);
    CHECK(keyed.old_row[0].bytes == "1");
    CHECK(keyed.old_row[1].kind == ValueKind::null);
    CHECK(keyed.row[0].bytes == "2");
    CHECK(keyed.row[1].bytes == "x");
    const Bytes with_row =
        Bytes("U").u32(9).text("O").u16(1).value("1").text("N").u16(1).value("2");
    CHECK(decoded<Update>(decoder, with_row).old_kind == OldRow::full);
}

TEST_CASE("a delete comes with the old key or the whole old row") {
    Decoder decoder = in_transaction();
    const Delete keyed = decoded<Delete>(decoder, Bytes("D").u32(9).text("K").u16(1).value("1"));
    CHECK(keyed.old_kind == OldRow::key);
    CHECK(keyed.old_row[0].bytes == "1");
    const Delete full = decoded<Delete>(decoder, Bytes("D").u32(9).text("O").u16(1).value("1"));
    CHECK(full.old_kind == OldRow::full);
    CHECK(refused(decoder, Bytes("D").u32(9).text("N").u16(1).value("1")) ==
          "a pgoutput message 'D' of 14 bytes holds a row of unknown kind 'N' where the old one "
          "has to be");
}

TEST_CASE("a truncate names its tables and its options") {
    Decoder decoder = in_transaction();
    const Truncate both = decoded<Truncate>(decoder, Bytes("T").u32(2).u8(2).u32(9).u32(10));
    CHECK_FALSE(both.cascade);
    CHECK(both.restart_identity);
    REQUIRE(both.relations.size() == 2);
    CHECK(both.relations[1] == 10);
    CHECK(decoded<Truncate>(decoder, Bytes("T").u32(1).u8(1).u32(9)).cascade);
}

TEST_CASE("a message that is not transactional stands outside of every transaction") {
    Decoder decoder;
    const Bytes heartbeat =
        Bytes("M").u8(0).u64(0x77).name("walvault.hb").u32(2).text(std::string_view("\0z", 2));
    const Message outside = decoded<Message>(decoder, heartbeat);
    CHECK_FALSE(outside.transactional);
    CHECK(outside.lsn == Lsn{0x77});
    CHECK(outside.prefix == "walvault.hb");
    CHECK(outside.content.size() == 2);
    CHECK_FALSE(decoder.in_transaction());
    REQUIRE(decoder.decode(begin()));
    const Message inside = decoded<Message>(decoder, Bytes("M").u8(1).u64(0x78).name("p").u32(0));
    CHECK(inside.transactional);
    CHECK(inside.content.empty());
}

TEST_CASE("in a stream block every change is led by the xid of who made it") {
    Decoder decoder;
    const StreamStart start = decoded<StreamStart>(decoder, stream_start(700));
    CHECK(start.xid == 700);
    CHECK(start.first);
    CHECK(decoder.stream_xid() == 700);
    REQUIRE(decoder.decode(Bytes("O").u64(1).name("elsewhere")));
    const Bytes relation = Bytes("R")
                               .u32(700)
                               .u32(9)
                               .name("public")
                               .name("t")
                               .text("f")
                               .u16(1)
                               .u8(1)
                               .name("a")
                               .u32(23)
                               .u32(~0U);
    CHECK(decoded<Relation>(decoder, relation).xid == 700);
    CHECK(decoded<Type>(decoder, Bytes("Y").u32(701).u32(9).name("public").name("mood")).xid ==
          701);
    CHECK(decoded<Insert>(decoder, Bytes("I").u32(702).u32(9).text("N").u16(1).value("1")).xid ==
          702);
    CHECK(decoded<Update>(decoder, Bytes("U").u32(703).u32(9).text("N").u16(1).value("1")).xid ==
          703);
    CHECK(decoded<Delete>(decoder, Bytes("D").u32(704).u32(9).text("K").u16(1).value("1")).xid ==
          704);
    CHECK(decoded<Truncate>(decoder, Bytes("T").u32(705).u32(1).u8(0).u32(9)).xid == 705);
    CHECK(decoded<Message>(decoder, Bytes("M").u32(706).u8(1).u64(1).name("p").u32(0)).xid == 706);
    decoded<StreamStop>(decoder, Bytes("E"));
    CHECK(decoder.stream_xid() == 0);
    // Outside of the block the same bytes mean something else.
    REQUIRE(decoder.decode(begin()));
    CHECK(decoded<Insert>(decoder, insert()).xid == 0);
}

TEST_CASE("a streamed transaction is committed, aborted in part, or aborted whole") {
    Decoder decoder;
    const StreamAbort part = decoded<StreamAbort>(decoder, Bytes("A").u32(700).u32(701));
    CHECK(part.xid == 700);
    CHECK(part.subxid == 701);
    CHECK_FALSE(part.abort_lsn);
    const StreamAbort told =
        decoded<StreamAbort>(decoder, Bytes("A").u32(700).u32(700).u64(0x55).u64(1'000'000));
    CHECK(told.abort_lsn == Lsn{0x55});
    CHECK(to_utc_text(told.aborted_at) == "2000-01-01T00:00:01.000000Z");
    const StreamCommit done =
        decoded<StreamCommit>(decoder, Bytes("c").u32(700).u8(0).u64(1).u64(2).u64(0));
    CHECK(done.xid == 700);
    CHECK(done.commit_lsn == Lsn{1});
    CHECK(done.end_lsn == Lsn{2});
    CHECK(refused(decoder, Bytes("A").u32(700).u32(701).u64(0x55)) ==
          "a pgoutput message 'A' of 17 bytes is cut off");
}

TEST_CASE("a transaction is prepared, and committed or rolled back later") {
    Decoder decoder;
    const BeginPrepare begun =
        decoded<BeginPrepare>(decoder, Bytes("b").u64(1).u64(2).u64(0).u32(700).name("it's"));
    CHECK(begun.prepare_lsn == Lsn{1});
    CHECK(begun.end_lsn == Lsn{2});
    CHECK(begun.xid == 700);
    CHECK(begun.gid == "it's");
    CHECK(decoded<Insert>(decoder, insert()).xid == 0);
    const Prepare prepared =
        decoded<Prepare>(decoder, Bytes("P").u8(0).u64(1).u64(2).u64(0).u32(700).name("it's"));
    CHECK(prepared.end_lsn == Lsn{2});
    CHECK_FALSE(decoder.in_transaction());
    const CommitPrepared done = decoded<CommitPrepared>(
        decoder, Bytes("K").u8(0).u64(3).u64(4).u64(0).u32(700).name("it's"));
    CHECK(done.commit_lsn == Lsn{3});
    CHECK(done.end_lsn == Lsn{4});
    CHECK(done.gid == "it's");
    const RollbackPrepared undone = decoded<RollbackPrepared>(
        decoder, Bytes("r").u8(0).u64(2).u64(5).u64(0).u64(1'000'000).u32(700).name("it's"));
    CHECK(undone.prepare_end_lsn == Lsn{2});
    CHECK(undone.end_lsn == Lsn{5});
    CHECK(to_utc_text(undone.prepared_at) == "2000-01-01T00:00:00.000000Z");
    CHECK(to_utc_text(undone.rolled_back_at) == "2000-01-01T00:00:01.000000Z");
    const StreamPrepare streamed =
        decoded<StreamPrepare>(decoder, Bytes("p").u8(0).u64(1).u64(2).u64(0).u32(700).name("g"));
    CHECK(streamed.xid == 700);
    CHECK(streamed.gid == "g");
}

TEST_CASE("every message that is cut anywhere, or has a byte too many, is refused") {
    for (const Example& example : examples()) {
        const ByteSpan whole = example.message;
        CAPTURE(as_text(whole.first(1)));
        REQUIRE(decode_behind(example.lead, whole));
        for (std::size_t size = 0; size < whole.size(); ++size) {
            // An abort without position and time is whole too.
            if (as_text(whole)[0] == 'A' && size == 9) continue;
            CAPTURE(size);
            auto cut = decode_behind(example.lead, whole.first(size));
            REQUIRE_FALSE(cut);
            CHECK(cut.error().code == Errc::corrupt);
        }
        ByteBuffer longer(whole.begin(), whole.end());
        longer.push_back(std::byte{0});
        CHECK_FALSE(decode_behind(example.lead, longer));
    }
}

TEST_CASE("a message that may not stand where it stands is refused by name") {
    auto accepts = [&](const std::vector<Bytes>& lead) {
        std::string accepted;
        for (const Example& example : examples())
            if (decode_behind(lead, example.message)) {
                const char type = as_text(ByteSpan(example.message))[0];
                if (accepted.find(type) == std::string::npos) accepted += type;
            }
        return accepted;
    };
    CHECK(accepts({}) == "BMScAbKrp");
    CHECK(accepts({begin()}) == "CORYIUDTM");
    CHECK(accepts({Bytes("b").u64(1).u64(2).u64(3).u32(700).name("gid")}) == "ORYIUDTMP");
    CHECK(accepts({stream_start(700)}).find('E') != std::string::npos);
    Decoder decoder;
    CHECK(refused(decoder, insert()) ==
          "a pgoutput message 'I' stands outside of a transaction, where it may not");
    REQUIRE(decoder.decode(stream_start(700)));
    CHECK(refused(decoder, stream_start(701)) ==
          "a pgoutput message 'S' stands in a stream block, where it may not");
    CHECK(refused(decoder, commit()) ==
          "a pgoutput message 'C' stands in a stream block, where it may not");
}

TEST_CASE("what no server sends is refused with what is wrong with it") {
    Decoder decoder = in_transaction();
    CHECK(refused(decoder, {}) == "an empty pgoutput message");
    CHECK(refused(decoder, Bytes("z")) == "a pgoutput message of unknown type 'z'");
    CHECK(refused(decoder, Bytes("").u8(1)) == "a pgoutput message of unknown type 1");
    CHECK(refused(decoder, Bytes("I").u32(9).text("K").u16(0)) ==
          "a pgoutput message 'I' of 8 bytes holds a row of unknown kind 'K' where the new one has "
          "to be");
    CHECK(refused(decoder, Bytes("I").u32(9).text("N").u16(1).text("x")) ==
          "a pgoutput message 'I' of 9 bytes holds column 1 of unknown kind 'x'");
    CHECK(refused(decoder, Bytes("I").u32(9).text("N").u16(1).text("t").u32(0x80000000)) ==
          "a pgoutput message 'I' of 13 bytes holds 2147483648 bytes of a value where 0 bytes are "
          "left");
    CHECK(refused(decoder, Bytes("I").u32(9).text("N").u16(0xFFFF).text("n")) ==
          "a pgoutput message 'I' of 9 bytes holds 65535 columns where 1 bytes are left");
    CHECK(refused(decoder, Bytes("T").u32(~0U).u8(0).u32(9)) ==
          "a pgoutput message 'T' of 10 bytes holds 4294967295 relations where 4 bytes are left");
    CHECK(refused(decoder, Bytes("T").u32(1).u8(4).u32(9)) ==
          "a pgoutput message 'T' of 10 bytes holds unknown flags 4");
    CHECK(refused(decoder, Bytes("R").u32(9).name("s").name("t").text("x").u16(0)) ==
          "a pgoutput message 'R' of 12 bytes holds an unknown replica identity 'x'");
    CHECK(refused(decoder, Bytes("R").u32(9).text("public")) ==
          "a pgoutput message 'R' of 11 bytes holds a name that does not end");
    CHECK(refused(decoder, Bytes("C").u8(1).u64(1).u64(2).u64(3)) ==
          "a pgoutput message 'C' of 26 bytes holds unknown flags 1");
    CHECK(refused(decoder, commit().u8(0)) == "a pgoutput message 'C' of 27 bytes has 1 too many");
    Decoder outside;
    CHECK(refused(outside, Bytes("B").u64(1).u64(2).u32(0)) ==
          "a pgoutput message 'B' of 21 bytes holds a transaction with the number 0");
    CHECK(outside.decode(Bytes("B").u64(1).u64(INT64_MAX).u32(1)));
}

TEST_CASE(
    "sessions of PostgreSQL 14 to 18 are read to their end, and hold every message there is") {
    for (const int major : {14, 15, 16, 17, 18}) {
        for (const bool streamed : {false, true}) {
            CAPTURE(major);
            CAPTURE(streamed);
            std::map<char, int> seen;
            const auto count = [&](char type, const AnyMessage&) { ++seen[type]; };
            read_session(session_of("postgres-" + std::to_string(major) +
                                    (streamed ? "-streamed" : "-whole")),
                         count);
            std::string types;
            for (const auto& [type, number] : seen)
                types += type;
            std::string expected = "BCDIMORTUY";
            if (major >= 15)
                expected = streamed ? "ABCDEIKMOPRSTUYbcpr" : "BCDIKMOPRTUYbr";
            else if (streamed)
                expected = "ABCDEIMORSTUYc";
            CHECK(types == expected);
            CHECK(seen['B'] == seen['C']);
            CHECK(seen['S'] == seen['E']);
        }
    }
}

TEST_CASE(
    "of a real session: unchanged TOAST, the old key, the whole old row, added columns, options of "
    "a truncate") {
    for (const int major : {14, 15, 16, 17, 18}) {
        CAPTURE(major);
        std::vector<Update> updates;
        std::map<Oid, std::string> names;
        std::vector<std::size_t> widths;
        bool restarted = false;
        const ByteBuffer session = session_of("postgres-" + std::to_string(major) + "-whole");
        read_session(session, [&](char, const AnyMessage& any) {
            if (const auto* relation = std::get_if<Relation>(&any)) {
                names[relation->oid] = relation->name;
                if (relation->name == "t") widths.push_back(relation->columns.size());
            }
            if (const auto* truncate = std::get_if<Truncate>(&any);
                truncate && truncate->relations.size() == 2)
                restarted = truncate->restart_identity && truncate->cascade;
            const auto* update = std::get_if<Update>(&any);
            if (update == nullptr) return;
            switch (updates.size()) {
                case 0:
                    CHECK(update->old_kind == OldRow::none);
                    CHECK(update->row[1].bytes == "uno");
                    CHECK(update->row[4].kind == ValueKind::unchanged);
                    break;
                case 1:
                    CHECK(update->old_kind == OldRow::key);
                    CHECK(update->old_row[0].bytes == "2");
                    CHECK(update->row[0].bytes == "3");
                    CHECK(update->row[1].kind == ValueKind::null);
                    break;
                case 2:
                    CHECK(update->old_kind == OldRow::full);
                    CHECK(update->old_row[1].kind == ValueKind::null);
                    break;
                default:
                    CHECK(update->row.size() == 6);
                    CHECK(update->row[5].bytes == "8");
            }
            updates.push_back(*update);
        });
        CHECK(updates.size() == 4);
        CHECK(widths.front() == 5);
        CHECK(widths.back() == 6);
        CHECK(restarted);
    }
}

TEST_CASE(
    "of a real session: aborts of savepoints, and a message that outlives the savepoint it was "
    "in") {
    for (const int major : {15, 16, 17, 18}) {
        CAPTURE(major);
        std::vector<StreamAbort> aborts;
        std::map<std::string, Xid> messages;
        Xid streamed = 0;
        const ByteBuffer session = session_of("postgres-" + std::to_string(major) + "-streamed");
        read_session(session, [&](char, const AnyMessage& any) {
            if (const auto* start = std::get_if<StreamStart>(&any); start && streamed == 0)
                streamed = start->xid;
            if (const auto* abort = std::get_if<StreamAbort>(&any)) aborts.push_back(*abort);
            if (const auto* message = std::get_if<Message>(&any))
                messages[std::string(message->content)] = message->xid;
        });
        REQUIRE(aborts.size() >= 2);
        CHECK(aborts[0].xid == streamed);
        CHECK(aborts[0].subxid > streamed);
        for (const StreamAbort& abort : aborts)
            CHECK(abort.abort_lsn.has_value() == (major >= 16));
        CHECK(messages.at("sub") == streamed);
        CHECK(messages.at("inside") == 0);
    }
}
