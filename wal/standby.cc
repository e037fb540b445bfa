#include "wal/standby.h"

namespace walvault::wal {
namespace {

bool is_true(const std::optional<std::string>& value) { return value == "t"; }

}  // namespace

Task<Result<StandbyFacts>> standby_facts(Connection& sql, Connection& walsender, std::string slot) {
    std::string query =
        "SELECT pg_catalog.pg_is_in_recovery(), "
        "coalesce(CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
        "pg_catalog.pg_last_wal_replay_lsn() "
        "ELSE pg_catalog.pg_current_wal_flush_lsn() END, '0/0'::pg_catalog.pg_lsn), "
        "s.slot_name IS NOT NULL, s.slot_type = 'physical', s.active, s.wal_status = 'lost', "
        "s.restart_lsn FROM (SELECT 1) AS always LEFT JOIN pg_catalog.pg_replication_slots s ON "
        "s.slot_name = " +
        quote_literal(slot);
    WV_CO_TRY(auto result, co_await sql.query_one(query));
    if (result.rows.size() != 1 || result.rows.front().size() != 7)
        co_return fail(Errc::corrupt, "the standby did not give one row of seven columns");
    const auto& row = result.rows.front();
    StandbyFacts facts;
    facts.in_recovery = is_true(row[0]);
    WV_CO_TRY(facts.replayed_lsn, parse_lsn(row[1].value_or("")));
    if (is_true(row[2])) {
        StandbyFacts::Slot found;
        found.physical = is_true(row[3]);
        found.active = is_true(row[4]);
        found.lost = is_true(row[5]);
        if (row[6]) {
            WV_CO_TRY(Lsn restart, parse_lsn(*row[6]));
            found.restart_lsn = restart;
        }
        facts.slot = found;
    }
    // After the position: what was replayed by then is on this timeline's path.
    WV_CO_TRY(SystemIdentity identity, co_await identify_system(walsender));
    facts.system_identifier = identity.system_identifier;
    facts.timeline = identity.timeline;
    co_return facts;
}

Task<Result<Lsn>> advance_slot(Connection& sql, std::string slot, Lsn to) {
    std::string query = "SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance(" +
                        quote_literal(slot) + ", " + quote_literal(to_string(to)) + ")";
    WV_CO_TRY(auto result, co_await sql.query_one(query));
    if (result.rows.size() != 1 || result.rows.front().empty() || !result.rows.front()[0])
        co_return fail(Errc::corrupt, "pg_replication_slot_advance gave no position");
    co_return parse_lsn(*result.rows.front()[0]);
}

}  // namespace walvault::wal
