#include "proto/replication_message.h"

#include <string>

namespace walvault {
namespace {

constexpr std::size_t kXLogDataHeaderBytes = 25;
constexpr std::size_t kKeepaliveBytes = 18;

}  // namespace

Result<std::variant<XLogData, Keepalive>> decode_server_message(ByteSpan message) {
    ByteReader reader(message);
    const char type = static_cast<char>(reader.be<std::uint8_t>());
    if (!reader.ok()) return fail(Errc::corrupt, "the server sent an empty replication message");
    if (type == 'w') {
        XLogData data;
        data.start_lsn = Lsn{reader.be<std::uint64_t>()};
        data.server_end_lsn = Lsn{reader.be<std::uint64_t>()};
        // Addition in unsigned arithmetic: a hostile time may wrap, it may not overflow.
        data.sent_at = WallTime(Micros(static_cast<std::int64_t>(
            reader.be<std::uint64_t>() + static_cast<std::uint64_t>(kPostgresEpochMicros))));
        if (!reader.ok())
            return fail(Errc::corrupt, "a WAL data message has " + std::to_string(message.size()) +
                                           " bytes, fewer than the " +
                                           std::to_string(kXLogDataHeaderBytes) + " of its header");
        data.wal = reader.bytes(reader.remaining());
        if (data.start_lsn.value + data.wal.size() < data.start_lsn.value)
            return fail(Errc::corrupt, "a WAL data message at " + to_string(data.start_lsn) +
                                           " with " + std::to_string(data.wal.size()) +
                                           " bytes runs past the last LSN there is");
        return data;
    }
    if (type == 'k') {
        if (message.size() != kKeepaliveBytes)
            return fail(Errc::corrupt, "a keepalive has " + std::to_string(message.size()) +
                                           " bytes instead of " + std::to_string(kKeepaliveBytes));
        Keepalive keepalive;
        keepalive.server_end_lsn = Lsn{reader.be<std::uint64_t>()};
        keepalive.sent_at = WallTime(Micros(static_cast<std::int64_t>(
            reader.be<std::uint64_t>() + static_cast<std::uint64_t>(kPostgresEpochMicros))));
        keepalive.reply_requested = reader.be<std::uint8_t>() != 0;
        return keepalive;
    }
    return fail(Errc::corrupt,
                "the server sent a replication message of unknown type " +
                    std::to_string(static_cast<unsigned>(static_cast<unsigned char>(type))));
}

ByteBuffer encode_standby_status(const StandbyStatus& status) {
    ByteBuffer out;
    out.reserve(34);
    out.push_back(static_cast<std::byte>('r'));
    append_be(out, status.written_lsn.value);
    append_be(out, status.flushed_lsn.value);
    append_be(out, status.applied_lsn.value);
    append_be(out, to_postgres_micros(status.sent_at));
    out.push_back(static_cast<std::byte>(status.reply_requested ? 1 : 0));
    return out;
}

}  // namespace walvault
