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
        false;  // its rows are those of its partitions, which have verdicts of their own
    std::string schema;
    std::string name;
    std::string table;  // both, as quoted_name()
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
    // Of the members those that are not published whole: with a row filter or a list of columns,
    // from 15 on.
    std::vector<std::uint32_t> narrowed;
};

struct PublicationRequest {
    unsigned server_major = 0;
    std::string name;
    std::string role;  // that will own the publications
    std::vector<CatalogTable> tables;
    PublicationState all_changes;
    PublicationState inserts;
};

// What changes for one table: for one transaction, as all of it takes the same lock of that table
// (SHARE UPDATE EXCLUSIVE).
struct MembershipChange {
    std::uint32_t oid = 0;
    std::string table;  // as quoted_name()
    bool leaves_all_changes = false;
    bool leaves_inserts = false;
    bool joins_all_changes = false;
    bool joins_inserts = false;
    bool in_danger = false;  // its UPDATE and DELETE fail, or may, until it has left NAME

    bool leaves() const { return leaves_all_changes || leaves_inserts; }
};
// Of all of `changes` in one transaction.
std::vector<std::string> statements_of(const std::string& name,
                                       const std::vector<MembershipChange>& changes);

// To be executed part by part, in the order of its members: so NAME comes to publish more only
// where nothing in it is in danger, and NAME_inserts publishes no UPDATE when a table joins it.
struct PublicationPlan {
    std::vector<std::string> first;  // CREATE and SET, which lock no table
    // Out of one, and maybe into the other; those in danger are at the front.
    std::vector<MembershipChange> leaving;
    std::vector<std::string> options;  // SET; once all of `leaving` is done
    std::vector<MembershipChange> joining;

    // One for each table that is selected, by schema and name; as it is after all of it.
    std::vector<TableVerdict> verdicts;
    // Tables whose UPDATE and DELETE fail at present, because NAME holds them.
    std::vector<std::string> in_danger;
    // After all of it, in ascending order.
    std::vector<std::uint32_t> all_changes;
    std::vector<std::uint32_t> inserts;

    bool changes_nothing() const {
        return first.empty() && leaving.empty() && options.empty() && joining.empty();
    }
};

std::string inserts_publication(const std::string& name);

// A partition goes with its root, whatever the patterns say of it, unless they leave one of the
// tree out by "!": then partitions are named one by one, and a new one joins with the next plan.
// Errors: refused if a publication of that name holds all tables or whole schemas; it is not ours.
Result<PublicationPlan> plan_publication(const PublicationRequest& request,
                                         const TablePatterns& patterns);

// Makes the verdicts of a plan, and its last two members, those of what is published now: `now` is
// the reading that it was planned from, and none of its changes is executed. The reason names the
// lock for the tables of `locked`, and what goes with a root that is one of them.
void judge_as_published(const PublicationRequest& now, const std::vector<std::uint32_t>& locked,
                        PublicationPlan& plan);

struct MembershipDifference {
    std::vector<std::uint32_t> joined;
    std::vector<std::uint32_t> left;
};
// Tables that hold rows of their own, in ascending order, which NAME publishes whole in `after` and
// did not in `before`, and those it published in `before` and no more: by themselves or by their
// root. One that a row filter or a list of columns narrowed has left and joined when it is
// published whole. A table that is gone is in neither, nor is a partition of a root that NAME held
// and holds.
MembershipDifference compare_members(const PublicationRequest& before,
                                     const PublicationRequest& after);

}  // namespace walvault::wal
