// The journal's publications in a database: read, planned (wal/publication_plan.h), put right.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "wal/connection.h"
#include "wal/publication_plan.h"

namespace walvault::wal {

// Tables and views of users, and the two publications; `name` as in plan_publication().
Task<Result<PublicationRequest>> publication_request(Connection& sql, std::string name);

struct AppliedPublication {
    // Of the last reading: verdicts as judge_as_published() makes them, changes that are still to
    // be made. `in_danger` is of the first one.
    PublicationPlan plan;
    std::vector<std::string> statements;  // that were executed and have taken effect
    bool changed = false;                 // whether there are any
    // As of compare_members() between the first reading and the last. What was attached to a root
    // before the first one is not among them.
    std::vector<std::uint32_t> joined;
    std::vector<std::uint32_t> left;
    // Tables that are not as planned because another session has locked them, roots for their
    // partitions.
    std::vector<std::uint32_t> waiting;
};
// Reads, plans and executes, a transaction for each table that joins or leaves: one that is locked
// holds up no other, and is in `waiting`. Those whose UPDATE and DELETE fail are taken out before
// anything else. What is free is done by the hundred, under locks that are not waited for. A
// table's lock is SHARE UPDATE EXCLUSIVE (neither reads nor writes wait for it, VACUUM and DDL hold
// such locks). While one is waited for no other table's is held, for `lock_timeout` at most, and
// for less than the server's deadlock_timeout: so never is the application the victim of a
// deadlock. A table that is in danger is waited for the whole `lock_timeout`, for an autovacuum
// gives way to who waits longer than deadlock_timeout. All waits are per table: with n locked ones
// the call takes n times as long.
//
// With the lock of a table that joins NAME the identities are looked at again, so that it has not
// lost its own by then; those of partitions are, when their root joins, but are not locked. Called
// at each interval it takes out what lost its identity since; until then the application's UPDATE
// and DELETE of that table fail, because PostgreSQL lets an identity be dropped without looking at
// publications.
//
// What was done stays done, whatever comes after it. Errors: as plan_publication; busy if the
// tables changed faster than they could be published, or if somebody altered a publication and what
// must leave it first is locked.
Task<Result<AppliedPublication>> apply_publication(Connection& sql, std::string name,
                                                   const TablePatterns& patterns,
                                                   std::chrono::milliseconds lock_timeout);
// Both, where they are there.
Task<Result<>> drop_publication(Connection& sql, std::string name);

}  // namespace walvault::wal
