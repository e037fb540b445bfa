// Messages inside the CopyBoth stream of physical replication (PostgreSQL manual, 55.4).
#pragma once

#include <cstdint>
#include <variant>

#include "base/bytes.h"
#include "base/clock.h"
#include "proto/lsn.h"

namespace walvault {

struct XLogData {
    Lsn start_lsn;
    Lsn server_end_lsn;  // what the server had flushed when it sent this
    WallTime sent_at;
    ByteSpan wal;  // a view into the message
};
struct Keepalive {
    Lsn server_end_lsn;  // what the server had sent, see PostgreSQL WalSndKeepalive
    WallTime sent_at;
    bool reply_requested = false;
};

// Errors: corrupt for an unknown type byte or a wrong length.
Result<std::variant<XLogData, Keepalive>> decode_server_message(ByteSpan message);

struct StandbyStatus {
    Lsn written_lsn;
    Lsn flushed_lsn;
    Lsn applied_lsn;
    WallTime sent_at;
    bool reply_requested = false;
};
// 34 bytes.
ByteBuffer encode_standby_status(const StandbyStatus& status);

}  // namespace walvault
