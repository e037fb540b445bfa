// Which tables the row journal's publications hold, and by which statements they come to do so:
// pure, without a server.
//
// PostgreSQL lets UPDATE and DELETE of a table fail while it has no replica identity and a
// publication that publishes them holds it. So there are two publications: NAME has all changes of
// the tables that have an identity, NAME_inserts has inserts and truncates of the others. Tables
// are named one by one, and whole: a column of a column list cannot be dropped any more, and an
// UPDATE fails as soon as the identity has a column that is not in the list.
//
// Of a partitioned table the root is published, so that a new partition is from its first row on;
// changes are published as those of the partition (publish_via_partition_root is off): as those of
// the root, a TRUNCATE of a partition would not be sent, nor could it be told what came and went by
// ATTACH and DETACH. It is the partitions' identities that count. One made later inherits the
// root's primary key, and no other identity: so a root without a primary key goes to NAME_inserts,
// and its partitions that have an identity to NAME besides.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "wal/table_pattern.h"

namespace walvault::wal {

struct CatalogTable {
    enum class Kind { ordinary, partitioned, foreign, view, materialized_view };
    enum class Persistence { permanent, unlogged, temporary };

    std::uint32_t oid = 0;
    std::string schema;
    std::string name;
    Kind kind = Kind::ordinary;
    Persistence persistence = Persistence::permanent;
    std::uint32_t root = 0;  // of a partition: the topmost table of its tree; else 0

    char identity = 'd';          // REPLICA IDENTITY: d(efault), n(othing), f(ull), i(ndex)
    bool identity_index = false;  // the index that is named is there, and can be used
    bool primary_key = false;     // there, and can be used: it is not deferrable
    bool deferrable_primary_key = false;
    bool virtual_columns = false;  // generated ones, from 18 on: they exclude REPLICA IDENTITY FULL
    // An index that could be the identity: unique, whole, not deferrable, of columns that are NOT
    // NULL. Or empty.
    std::string candidate_index;

    bool owned = true;  // the role may publish it
    std::string owner;
};

// "public"."orders"
std::string quoted_name(const CatalogTable& table);

// Whether UPDATE and DELETE of a table that is not partitioned pass while a publication of them
// holds it.
bool has_replica_identity(const CatalogTable& table);

enum class Journaled {
    all_changes,
    inserts_only,  // and truncates
    left_out,
};
struct TableVerdict {
    std::uint32_t oid = 0;
    std::uint32_t root = 0;  // as in CatalogTable
    bool partitioned =
        false;          // its rows are those of its partitions, which have verdicts of their own
    std::string table;  // as quoted_name()
    Journaled journaled = Journaled::left_out;
    std::string reason;  // why not all changes; empty where they are
    std::string mend;    // the statement that would change it; empty where there is none
};

// What a publication of ours is at present.
struct PublicationState {
    bool exists = false;
    bool as_made_here = false;           // what it publishes, and how
    bool names_tables = true;            // neither all tables nor whole schemas
    std::vector<std::uint32_t> members;  // oids
};

struct PublicationRequest {
    unsigned server_major = 0;
    std::string name;
    std::string role;  // that will own the publications
    std::vector<CatalogTable> tables;
    PublicationState all_changes;
    PublicationState inserts;
};

struct PublicationPlan {
    // For one transaction, in this order: what takes a table out of NAME is first.
    std::vector<std::string> statements;
    // One for each table that is selected, by schema and name.
    std::vector<TableVerdict> verdicts;
    // Tables whose UPDATE and DELETE fail at present, because NAME holds them.
    std::vector<std::string> in_danger;
    // After the statements, in ascending order.
    std::vector<std::uint32_t> all_changes;
    std::vector<std::uint32_t> inserts;
};

std::string inserts_publication(const std::string& name);

// A partition goes with its root, whatever the patterns say of it, unless they leave one of the
// tree out by "!": then partitions are named one by one, and a new one joins with the next plan.
// Errors: refused if a publication of that name holds all tables or whole schemas; it is not ours.
Result<PublicationPlan> plan_publication(const PublicationRequest& request,
                                         const TablePatterns& patterns);

}  // namespace walvault::wal
