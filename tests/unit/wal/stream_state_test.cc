#include "wal/stream_state.h"

#include <doctest/doctest.h>

#include <vector>

namespace walvault::wal {
namespace {

using std::chrono::milliseconds;

constexpr Lsn kStart{0x1000000};

struct Stream {
    explicit Stream(StreamState::Options options = {}) : state(options, kStart, now) {}

    Result<> wal_at(Lsn start, std::size_t size) {
        bytes.assign(size, std::byte{7});
        XLogData data;
        data.start_lsn = start;
        data.server_end_lsn = start + size;
        data.wal = bytes;
        return state.on_wal(data, now);
    }
    void keepalive(Lsn end, bool reply) {
        Keepalive message;
        message.server_end_lsn = end;
        message.reply_requested = reply;
        state.on_keepalive(message, now);
    }
    StandbyStatus status(bool ask = false) { return state.take_status(ask, now, WallTime(Micros(42))); }
    void pass(milliseconds time) { now += time; }

    SteadyTime now = SteadyTime(std::chrono::hours(1));
    std::vector<std::byte> bytes;
    StreamState state;
};

TEST_CASE("WAL that continues where the last ended is received") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    REQUIRE(stream.wal_at(kStart + 100, 28));
    CHECK(stream.state.received_lsn() == kStart + 128);
    CHECK(stream.state.server_end_lsn() == kStart + 128);
}

TEST_CASE("WAL that leaves out, repeats or overruns bytes is corrupt and changes nothing") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    for (Lsn wrong : {kStart + 101, kStart + 99, kStart, Lsn{0}, Lsn{~std::uint64_t{0}}}) {
        auto taken = stream.wal_at(wrong, 10);
        REQUIRE_FALSE(taken);
        CHECK(taken.error().code == Errc::corrupt);
    }
    CHECK(stream.state.received_lsn() == kStart + 100);

    StreamState at_the_end({}, Lsn{~std::uint64_t{0} - 4}, stream.now);
    std::vector<std::byte> five(5);
    XLogData data;
    data.start_lsn = Lsn{~std::uint64_t{0} - 4};
    data.wal = five;
    auto taken = at_the_end.on_wal(data, stream.now);
    REQUIRE_FALSE(taken);
    CHECK(taken.error().code == Errc::corrupt);
}

TEST_CASE("nothing is acknowledged until the owner says what is flushed") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    StandbyStatus status = stream.status();
    CHECK(status.flushed_lsn == Lsn{});
    CHECK(status.written_lsn == Lsn{});
}

TEST_CASE("written and flushed are what is acknowledged, applied is none") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    stream.state.acknowledge(kStart + 60, true);
    StandbyStatus status = stream.status();
    CHECK(status.written_lsn == kStart + 60);
    CHECK(status.flushed_lsn == kStart + 60);
    CHECK(status.applied_lsn == Lsn{});
    CHECK(status.sent_at == WallTime(Micros(42)));
    CHECK_FALSE(status.reply_requested);
}

TEST_CASE("what is acknowledged is never ahead of what this connection received") {
    Stream stream;
    stream.state.acknowledge(kStart + 1000, true);
    CHECK(stream.status().flushed_lsn == kStart);
    REQUIRE(stream.wal_at(kStart, 100));
    CHECK(stream.status().flushed_lsn == kStart + 100);
    REQUIRE(stream.wal_at(kStart + 100, 2000));
    CHECK(stream.status().flushed_lsn == kStart + 1000);
}

TEST_CASE("what is acknowledged never moves back") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    stream.state.acknowledge(kStart + 80, false);
    stream.state.acknowledge(kStart + 20, true);
    CHECK(stream.state.acknowledged_lsn() == kStart + 80);
    CHECK(stream.status().flushed_lsn == kStart + 80);
}

TEST_CASE("an urgent acknowledgement is due at once, another with the status interval") {
    Stream stream;
    REQUIRE(stream.wal_at(kStart, 100));
    stream.state.acknowledge(kStart + 10, false);
    CHECK_FALSE(stream.state.status_due(stream.now));
    stream.pass(milliseconds(999));
    CHECK_FALSE(stream.state.status_due(stream.now));
    stream.pass(milliseconds(1));
    CHECK(stream.state.status_due(stream.now));
    stream.status();
    CHECK_FALSE(stream.state.status_due(stream.now));

    stream.state.acknowledge(kStart + 20, true);
    CHECK(stream.state.status_due(stream.now));
    stream.status();
    stream.state.acknowledge(kStart + 20, true);
    CHECK_FALSE(stream.state.status_due(stream.now));
}

TEST_CASE("a keepalive that asks is answered at once, one that does not is not") {
    Stream stream;
    stream.keepalive(kStart + 5, false);
    CHECK_FALSE(stream.state.status_due(stream.now));
    stream.keepalive(kStart + 9, true);
    CHECK(stream.state.status_due(stream.now));
    CHECK(stream.state.server_end_lsn() == kStart + 9);
    stream.status();
    CHECK_FALSE(stream.state.status_due(stream.now));
}

TEST_CASE("a status goes out every third of the server's time-out though nothing moved") {
    StreamState::Options options;
    options.wal_sender_timeout = milliseconds(3000);
    options.ask_interval = milliseconds(60000);
    Stream stream(options);
    stream.pass(milliseconds(999));
    CHECK_FALSE(stream.state.status_due(stream.now));
    CHECK(stream.state.next_due_at() == stream.now + milliseconds(1));
    stream.pass(milliseconds(1));
    CHECK(stream.state.status_due(stream.now));
}

TEST_CASE("a silent server is asked once every ask interval") {
    Stream stream;
    stream.pass(milliseconds(1000));
    REQUIRE(stream.state.ask_due(stream.now));
    CHECK(stream.status(true).reply_requested);
    CHECK_FALSE(stream.state.ask_due(stream.now));
    stream.pass(milliseconds(500));
    stream.keepalive(kStart, false);
    stream.pass(milliseconds(999));
    CHECK_FALSE(stream.state.ask_due(stream.now));
    stream.pass(milliseconds(1));
    CHECK(stream.state.ask_due(stream.now));
}

TEST_CASE("a server that was asked and is silent for twice its time-out is dead") {
    StreamState::Options options;
    options.wal_sender_timeout = milliseconds(3000);
    Stream stream(options);
    stream.pass(milliseconds(1000));
    stream.status(true);
    SteadyTime asked = stream.now;
    stream.pass(milliseconds(3000));
    stream.status(true);
    stream.pass(milliseconds(2999));
    CHECK_FALSE(stream.state.dead(stream.now));
    stream.pass(milliseconds(1));
    CHECK(stream.now - asked == milliseconds(6000));
    CHECK(stream.state.dead(stream.now));
    stream.keepalive(kStart, false);
    CHECK_FALSE(stream.state.dead(stream.now));
}

TEST_CASE("a pause of this process alone is no death of the server") {
    Stream stream;
    stream.pass(std::chrono::hours(2));
    CHECK_FALSE(stream.state.dead(stream.now));
    CHECK(stream.state.ask_due(stream.now));
}

TEST_CASE("a server without a time-out is held dead after two minutes of silence") {
    StreamState::Options options;
    options.wal_sender_timeout = milliseconds(0);
    Stream stream(options);
    stream.pass(milliseconds(1000));
    stream.status(true);
    stream.pass(milliseconds(119999));
    CHECK_FALSE(stream.state.dead(stream.now));
    stream.pass(milliseconds(1));
    CHECK(stream.state.dead(stream.now));
}

TEST_CASE("of decoded changes what the server has named may be acknowledged, in any order, and no more") {
    Stream stream;
    stream.state.acknowledge(kStart + 500, false);
    CHECK(stream.state.acknowledged_lsn() == kStart);
    stream.state.on_decoded(kStart + 300, stream.now);
    stream.state.on_decoded(kStart + 100, stream.now);
    stream.state.on_decoded(Lsn{0}, stream.now);
    CHECK(stream.state.acknowledged_lsn() == kStart + 300);
    stream.state.on_decoded(kStart + 900, stream.now);
    CHECK(stream.state.acknowledged_lsn() == kStart + 500);
    stream.state.acknowledge(kStart + 400, true);
    CHECK(stream.status().flushed_lsn == kStart + 500);
}

}  // namespace
}  // namespace walvault::wal
