// TableSnapshot: the rows of tables as an exported snapshot shows them, one by one, as pgoutput
// would send them.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "proto/pgoutput.h"
#include "wal/logical_session.h"
#include "wal/table_form.h"

namespace walvault::wal {

class TableSnapshot {
public:
    struct Options {
        DatabaseOptions database;
        std::string
            snapshot_name;  // of create_logical_slot(), whose connection lives and does nothing
        std::chrono::milliseconds lock_timeout{10'000};
    };
    // Errors: as connect_to_database.
    static Task<Result<std::unique_ptr<TableSnapshot>>> open(Options options);
    virtual ~TableSnapshot() = default;

    // Begins with a table, after the one before has ended. The Relation is as pgoutput would send
    // it for a publication that names the table whole, in the catalogue of the snapshot: same
    // columns, same order (no dropped ones; no generated ones before 18, stored ones from 18 on);
    // it lives until the next begin(). Of a partitioned table, which has no rows, the partitions
    // are to be read; of one that others inherit from, its own rows come. While a table is read its
    // ACCESS SHARE lock lets reads and writes pass. TRUNCATE and DDL of the table wait until it has
    // been read, and so does, behind the first of those, everything else that comes to the table,
    // reads as well. Errors: not_found (the snapshot does not show it); busy: it was truncated,
    // rewritten, altered or dropped since the snapshot, which then does not show its rows any more,
    // or it is locked; a new snapshot is needed. refused: the role may not read it whole (no
    // SELECT, or row security). unavailable: the snapshot is gone, or the connection.
    virtual Task<Result<pgoutput::Relation>> begin(pgoutput::Oid table) = 0;
    // Of the table that was begun with, in the catalogue of the snapshot.
    virtual const TableForm& form() const = 0;
    // The next row, good until the next call; nothing after the last one. One message of the server
    // is in memory. After an error this object is of no more use.
    virtual Task<Result<std::optional<pgoutput::Tuple>>> next() = 0;
    // From anywhere on the loop: what is pending returns cancelled.
    virtual void close() = 0;
};

}  // namespace walvault::wal
