// What the row journal needs in a database, and how it gets there: facts and the slot; publications
// are made by wal/publication_apply.h.
//
// Order: publications first, then the slot. Decoding looks at the catalogue as it was at the
// change, so that a publication made after the slot does not exist for what lies between.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proto/lsn.h"
#include "wal/connection.h"
#include "wal/publication_apply.h"

namespace walvault::wal {

struct LogicalSlot {
    std::string name;
    bool active = false;
    bool two_phase = false;
    // The server decodes from here on at the earliest. Above what is stored: changes are missing, a
    // gap.
    std::optional<Lsn> confirmed_flush_lsn;
    std::optional<Lsn> restart_lsn;
    std::string wal_status;  // reserved, extended, unreserved, lost
    std::uint64_t retained_bytes = 0;
    // Rows of catalogues that VACUUM keeps for it, by the oldest transaction; none where it holds
    // nothing.
    std::optional<Xid> catalog_xmin;
    std::int64_t catalog_xmin_age = 0;

    bool lost() const { return wal_status == "lost" || !restart_lsn; }
};

struct DatabaseFacts {
    int server_version_num = 0;
    std::string database;
    std::string role;
    bool role_may_replicate = false;  // REPLICATION, or a superuser
    bool role_may_publish = false;    // CREATE on the database
    std::string wal_level;            // logical is needed
    std::string server_encoding;
    bool in_recovery = false;
    std::vector<LogicalSlot> slots;  // logical ones of this database, by name

    const LogicalSlot* slot(const std::string& name) const;
};
Task<Result<DatabaseFacts>> database_facts(Connection& sql);
// What is missing for a journal of this database, with the statement or setting as its hint.
// Errors: refused.
Result<> check_journal_possible(const DatabaseFacts& facts);

// Those of `paths` ("schema.table.column") that no column of an ordinary or partitioned table of
// this database is called.
Task<Result<std::vector<std::string>>> unknown_columns(Connection& sql,
                                                       std::vector<std::string> paths);

struct LogicalSlotOptions {
    std::string slot;
    bool temporary = false;  // ends with the connection
    bool two_phase = false;  // PREPARE TRANSACTION is decoded when it is made; ignored before 15
    bool failover = false;   // copied to standbys that ask for it; ignored before 17
    // For each transaction that it waits for, one after the other, and not for all of it: those
    // that were running when it began, and in up to two more rounds those that began meanwhile. One
    // that is idle would hold it up for ever.
    std::chrono::milliseconds wait_timeout{60'000};
};
struct CreatedSlot {
    Lsn consistent_lsn;         // changes of transactions that commit after it are decoded
    std::string snapshot_name;  // shows exactly those before it
};
// On a connection of Mode::database_replication. The snapshot can be imported (TableSnapshot) until
// the next command on that connection, or its end. Errors: refused if the slot exists or wal_level
// is too low; busy if one transaction did not end in time (the hint names the oldest); and then
// there is no slot.
Task<Result<CreatedSlot>> create_logical_slot(Connection& replication, LogicalSlotOptions options);
// Dropping: drop_slot_by_sql() of wal/server_facts.h.

}  // namespace walvault::wal
