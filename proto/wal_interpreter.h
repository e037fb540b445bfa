// WalInterpreter: turns one checked WAL record into the findings it holds, if any.
#pragma once

#include <vector>

#include "proto/wal_record.h"
#include "proto/wal_transactions.h"

namespace walvault {

class WalInterpreter {
public:
    WalInterpreter(const ServerVersion& version, bool count_rows)
        : version_(&version), count_rows_(count_rows) {}

    // `body` is the whole body or its first kept_body_bytes_max(). Errors: corrupt, for a record
    // whose CRC is right but whose content is not PostgreSQL's.
    Result<> read(const WalRecordHeader& header, Lsn start_lsn, Lsn end_lsn, ByteSpan body,
                  std::vector<WalFinding>& findings);

private:
    Result<> read_xact(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                       std::vector<WalFinding>& findings);
    Result<> read_xlog(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                       std::vector<WalFinding>& findings);
    void read_smgr(const WalRecordHeader& header, ByteSpan body);
    void count_row(const WalRecordHeader& header, ByteSpan body);
    void read_truncate(const WalRecordHeader& header, WalFinding finding, ByteSpan body,
                       std::vector<WalFinding>& findings);
    void read_heap2(const WalRecordHeader& header, ByteSpan body);

    bool parse(const WalRecordHeader& header, ByteSpan body, WalRecordBody& parsed) const;
    Result<> not_understood(const WalRecordHeader& header, Lsn start_lsn) const;

    const ServerVersion* version_;  // in the table of server_version.cc
    bool count_rows_;
    OpenTransactions open_;
};

}  // namespace walvault
