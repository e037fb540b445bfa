#include "wal/publication_apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "wal/query_rows.h"
#include "wal/walsender.h"

namespace walvault::wal {
namespace {

using Oid = std::uint32_t;
using Changes = std::vector<MembershipChange>;

constexpr int kRounds = 10;
constexpr std::size_t kGroup = 100;  // tables in one transaction, while none has to be waited for

// Indexes as RelationGetIndexList() looks at them for an identity; the candidate has what REPLICA
// IDENTITY USING INDEX asks for.
constexpr const char* kTables =
    "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, "
    "CASE WHEN c.relispartition THEN coalesce(pg_catalog.pg_partition_root(c.oid)::oid, 0) ELSE 0 "
    "END, "
    "coalesce(i.identity, false), coalesce(i.primary_key, false), coalesce(i.deferrable, false), "
    "EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = "
    "'v' "
    "AND NOT a.attisdropped), i.candidate, pg_catalog.pg_has_role(c.relowner, 'USAGE'), "
    "pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c JOIN "
    "pg_catalog.pg_namespace n "
    "ON n.oid = c.relnamespace LEFT JOIN LATERAL (SELECT "
    "bool_or(x.indisreplident AND usable AND x.indpred IS NULL) AS identity, "
    "bool_or(x.indisprimary AND usable) AS primary_key, "
    "bool_or(x.indisprimary AND NOT x.indimmediate) AS deferrable, "
    "min(r.relname::text) FILTER (WHERE usable AND x.indpred IS NULL AND x.indexprs IS NULL AND "
    "NOT EXISTS "
    "(SELECT FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) AS k JOIN "
    "pg_catalog.pg_attribute a "
    "ON a.attrelid = x.indrelid AND a.attnum = k WHERE NOT a.attnotnull)) AS candidate "
    "FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class r ON r.oid = x.indexrelid, "
    "LATERAL (SELECT x.indisvalid AND x.indisunique AND x.indimmediate AS usable) u "
    "WHERE x.indrelid = c.oid) i ON true "
    "WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.oid >= 16384 "
    "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

CatalogTable::Kind kind_of(const std::string& relkind) {
    if (relkind == "p") return CatalogTable::Kind::partitioned;
    if (relkind == "f") return CatalogTable::Kind::foreign;
    if (relkind == "v") return CatalogTable::Kind::view;
    if (relkind == "m") return CatalogTable::Kind::materialized_view;
    return CatalogTable::Kind::ordinary;
}

CatalogTable::Persistence persistence_of(const std::string& relpersistence) {
    if (relpersistence == "u") return CatalogTable::Persistence::unlogged;
    if (relpersistence == "t") return CatalogTable::Persistence::temporary;
    return CatalogTable::Persistence::permanent;
}

Task<Result<std::vector<CatalogTable>>> read_tables(Connection& sql, std::string condition) {
    WV_CO_TRY(auto result, co_await sql.query_one(kTables + std::move(condition) +
                                                  " ORDER BY n.nspname, c.relname"));
    std::vector<CatalogTable> tables;
    for (std::size_t row = 0; row < result.rows.size(); ++row) {
        CatalogTable table;
        WV_CO_TRY(table.oid, number_at<Oid>(result, row, 0));
        table.schema = text_at(result, row, 1);
        table.name = text_at(result, row, 2);
        table.kind = kind_of(text_at(result, row, 3));
        table.persistence = persistence_of(text_at(result, row, 4));
        const std::string identity = text_at(result, row, 5);
        if (identity.size() == 1) table.identity = identity.front();
        WV_CO_TRY(table.root, number_at<Oid>(result, row, 6));
        table.identity_index = true_at(result, row, 7);
        table.primary_key = true_at(result, row, 8);
        table.deferrable_primary_key = true_at(result, row, 9);
        table.virtual_columns = true_at(result, row, 10);
        table.candidate_index = text_at(result, row, 11);
        table.owned = true_at(result, row, 12);
        table.owner = text_at(result, row, 13);
        tables.push_back(std::move(table));
    }
    co_return tables;
}

// "1,22"
Result<std::vector<Oid>> parse_oids(const std::string& list) {
    std::vector<Oid> oids;
    for (const char* at = list.data(); at < list.data() + list.size();) {
        Oid oid = 0;
        auto [end, error] = std::from_chars(at, list.data() + list.size(), oid);
        if (error != std::errc())
            return fail(Errc::corrupt, "a publication's members are no numbers: " + list);
        oids.push_back(oid);
        at = end + 1;
    }
    return oids;
}

Task<Result<PublicationState>> read_publication(Connection& sql, std::string name,
                                                bool inserts_only) {
    const unsigned major = server_major_of(static_cast<unsigned>(sql.server_version_num()));
    const char* rows = inserts_only ? "NOT pubupdate AND NOT pubdelete" : "pubupdate AND pubdelete";
    WV_CO_TRY(
        auto found,
        co_await sql.query_one(fmt::format(
            "SELECT pubinsert AND {} AND pubtruncate AND NOT pubviaroot{}, NOT puballtables{}, "
            "m.members, m.narrowed FROM pg_catalog.pg_publication p, LATERAL (SELECT "
            "pg_catalog.string_agg(r.prrelid::text, ',') AS members, "
            "pg_catalog.string_agg(r.prrelid::text, ',') FILTER (WHERE {}) AS narrowed FROM "
            "pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid) m WHERE pubname = {}",
            rows, major >= 18 ? " AND pubgencols = 's'" : "",
            major >= 15 ? " AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s "
                          "WHERE s.pnpubid = p.oid)"
                        : "",
            major >= 15 ? "r.prqual IS NOT NULL OR r.prattrs IS NOT NULL" : "false",
            quote_literal(name))));
    PublicationState state;
    if (found.rows.empty()) co_return state;
    state.exists = true;
    state.as_made_here = true_at(found, 0, 0);
    state.names_tables = true_at(found, 0, 1);
    WV_CO_TRY(state.members, parse_oids(text_at(found, 0, 2)));
    WV_CO_TRY(state.narrowed, parse_oids(text_at(found, 0, 3)));
    co_return state;
}

// The catalogue is not what it was when it was read.
bool changed_meanwhile(const std::string& sqlstate) {
    for (const char* state :
         {"42P01", "42704", "42710", "3F000", "40P01", "40001", "55000", "XX000"})
        if (sqlstate == state) return true;
    return false;
}

// Carries out plans, one reading of the catalogue after the other.
class Publisher {
public:
    Publisher(Connection& sql, std::string name, const TablePatterns& patterns,
              std::chrono::milliseconds lock_timeout)
        : sql_(sql), name_(std::move(name)), patterns_(patterns), timeout_(lock_timeout) {}

    Task<Result<AppliedPublication>> run();

private:
    enum class Outcome { done, locked, changed };

    Task<Result<>> ask_deadlock_timeout();
    Task<Result<>> carry_out(PublicationPlan plan);
    Task<Result<>> settle(Changes changes);
    Task<Result<>> settle_one(MembershipChange change);
    Task<Result<bool>> try_options(std::vector<std::string> statements);
    Task<Result<Outcome>> try_group(Changes changes);
    Task<Result<Outcome>> try_statements(std::vector<std::string> wanted, std::string lock,
                                         Changes changes, std::chrono::milliseconds patience);
    Task<Result<bool>> execute(std::vector<std::string> statements, Changes changes);
    Task<Result<bool>> identities_are_there(const Changes& changes);
    void conclude(const PublicationRequest& before, const PublicationRequest& after,
                  PublicationPlan plan);
    bool is_waiting(const MembershipChange& change) const {
        return std::find(applied_.waiting.begin(), applied_.waiting.end(), change.oid) !=
               applied_.waiting.end();
    }

    Connection& sql_;
    std::string name_;
    const TablePatterns& patterns_;
    std::chrono::milliseconds timeout_;
    std::chrono::milliseconds short_timeout_{};  // below the server's deadlock_timeout
    AppliedPublication applied_;
    bool again_ = false;  // something was not as it had been read
};

Task<Result<>> Publisher::ask_deadlock_timeout() {
    WV_CO_TRY(auto found, co_await sql_.query_one("SELECT setting FROM pg_catalog.pg_settings "
                                                  "WHERE name = 'deadlock_timeout'"));
    WV_CO_TRY(auto deadlock_ms, number_at<std::int64_t>(found, 0, 0));
    // 0 would be for ever.
    timeout_ = std::max(timeout_, std::chrono::milliseconds(1));
    short_timeout_ = std::clamp(std::chrono::milliseconds(deadlock_ms * 9 / 10),
                                std::chrono::milliseconds(1), timeout_);
    co_return Result<>();
}

// With the locks of `changes` held: whether what joins NAME has what UPDATE and DELETE need.
Task<Result<bool>> Publisher::identities_are_there(const Changes& changes) {
    std::set<Oid> joining;
    std::string list;
    for (const MembershipChange& change : changes) {
        if (!change.joins_all_changes) continue;
        joining.insert(change.oid);
        list += (list.empty() ? "" : ",") + std::to_string(change.oid);
    }
    if (joining.empty()) co_return true;
    // Not pg_partition_tree(), which would wait for locks of partitions.
    WV_CO_TRY(auto tables,
              co_await read_tables(
                  sql_, fmt::format(" AND c.oid IN (WITH RECURSIVE tree (oid) AS (SELECT "
                                    "unnest('{{{}}}'::oid[]) UNION SELECT x.inhrelid FROM tree "
                                    "JOIN pg_catalog.pg_inherits x ON x.inhparent = tree.oid) "
                                    "SELECT oid FROM tree)",
                                    list)));
    for (const CatalogTable& table : tables) {
        const bool itself = joining.contains(table.oid);
        if (!itself && !joining.contains(table.root)) continue;
        if (table.kind == CatalogTable::Kind::partitioned && itself && !table.primary_key)
            co_return false;
        if (table.kind == CatalogTable::Kind::ordinary &&
            table.persistence == CatalogTable::Persistence::permanent &&
            !has_replica_identity(table))
            co_return false;
    }
    co_return true;
}

// False where an identity is gone.
Task<Result<bool>> Publisher::execute(std::vector<std::string> statements, Changes changes) {
    for (const std::string& statement : statements)
        WV_CO_CHECK(co_await sql_.query(statement));
    WV_CO_TRY(bool good, co_await identities_are_there(changes));
    if (good) WV_CO_CHECK(co_await sql_.query("COMMIT"));
    co_return good;
}

// One transaction; `lock` is what it begins with, where that is not empty.
Task<Result<Publisher::Outcome>> Publisher::try_statements(std::vector<std::string> wanted,
                                                           std::string lock, Changes changes,
                                                           std::chrono::milliseconds patience) {
    std::vector<std::string> statements = wanted;
    if (!lock.empty()) statements.insert(statements.begin(), lock);
    WV_CO_CHECK(co_await sql_.query(
        fmt::format("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}",
                    patience.count())));
    auto executed = co_await execute(std::move(statements), std::move(changes));
    const bool done = executed && *executed;
    if (done) {
        applied_.changed = true;
        for (std::string& statement : wanted)
            applied_.statements.push_back(std::move(statement));
        co_return Outcome::done;
    }
    const std::string state = executed ? std::string() : sql_.sqlstate();
    auto ended = co_await sql_.query("ROLLBACK");
    if (executed && ended) co_return Outcome::changed;
    if (executed) co_return fail(std::move(ended).error());
    if (ended && (state == "55P03" || state == "40P01")) co_return Outcome::locked;
    if (ended && changed_meanwhile(state)) co_return Outcome::changed;
    // LOCK asks for more rights than the rest.
    if (ended && !lock.empty() && state == "42501") co_return Outcome::locked;
    co_return fail(std::move(executed).error());
}

// Of the publications themselves; false where they are not as they were read, or locked.
Task<Result<bool>> Publisher::try_options(std::vector<std::string> statements) {
    if (statements.empty()) co_return true;
    std::string no_lock;
    Changes no_changes;
    WV_CO_TRY(const Outcome outcome,
              co_await try_statements(std::move(statements), std::move(no_lock),
                                      std::move(no_changes), short_timeout_));
    co_return outcome == Outcome::done;
}

// Without waiting for the lock of a table.
Task<Result<Publisher::Outcome>> Publisher::try_group(Changes changes) {
    std::string lock;
    for (const MembershipChange& change : changes)
        lock += (lock.empty() ? "LOCK TABLE ONLY " : ", ONLY ") + change.table;
    lock += " IN SHARE UPDATE EXCLUSIVE MODE NOWAIT";
    std::vector<std::string> statements = statements_of(name_, changes);
    co_return co_await try_statements(std::move(statements), std::move(lock), std::move(changes),
                                      short_timeout_);
}

Task<Result<>> Publisher::settle_one(MembershipChange change) {
    const auto patience = change.in_danger ? timeout_ : short_timeout_;
    Changes single{change};
    std::vector<std::string> statements = statements_of(name_, single);
    std::string no_lock;
    WV_CO_TRY(const Outcome outcome,
              co_await try_statements(std::move(statements), std::move(no_lock), std::move(single),
                                      patience));
    if (outcome == Outcome::locked) applied_.waiting.push_back(change.oid);
    if (outcome == Outcome::changed) again_ = true;
    co_return Result<>();
}

Task<Result<>> Publisher::settle(Changes changes) {
    std::erase_if(changes, [this](const MembershipChange& change) { return is_waiting(change); });
    for (std::size_t begin = 0; begin < changes.size(); begin += kGroup) {
        const std::size_t end = std::min(begin + kGroup, changes.size());
        Changes group(changes.begin() + static_cast<std::ptrdiff_t>(begin),
                      changes.begin() + static_cast<std::ptrdiff_t>(end));
        if (group.size() > 1) {
            WV_CO_TRY(const Outcome outcome, co_await try_group(group));
            if (outcome == Outcome::done) continue;
        }
        for (const MembershipChange& change : group)
            WV_CO_CHECK(co_await settle_one(change));
    }
    co_return Result<>();
}

Task<Result<>> Publisher::carry_out(PublicationPlan plan) {
    WV_CO_TRY(const bool made, co_await try_options(plan.first));
    again_ = !made;
    if (again_) co_return Result<>();
    WV_CO_CHECK(co_await settle(plan.leaving));
    if (!plan.options.empty()) {
        if (again_) co_return Result<>();
        for (const MembershipChange& change : plan.leaving)
            if (is_waiting(change))
                co_return fail(
                    Errc::busy,
                    fmt::format("the publication was altered, and the table {}, which has to leave "
                                "it before it is put right, is locked by another session",
                                change.table));
        WV_CO_TRY(const bool set, co_await try_options(plan.options));
        again_ = !set;
        if (again_) co_return Result<>();
    }
    co_return co_await settle(plan.joining);
}

void Publisher::conclude(const PublicationRequest& before, const PublicationRequest& after,
                         PublicationPlan plan) {
    std::set<Oid> open;
    for (const Changes* changes : {&plan.leaving, &plan.joining})
        for (const MembershipChange& change : *changes)
            open.insert(change.oid);
    std::erase_if(applied_.waiting, [&](Oid oid) { return !open.contains(oid); });
    judge_as_published(after, applied_.waiting, plan);
    MembershipDifference difference = compare_members(before, after);
    applied_.joined = std::move(difference.joined);
    applied_.left = std::move(difference.left);
    applied_.plan = std::move(plan);
}

Task<Result<AppliedPublication>> Publisher::run() {
    WV_CO_CHECK(co_await ask_deadlock_timeout());
    std::optional<PublicationRequest> before;
    std::vector<std::string> in_danger;
    for (int round = 1;; ++round) {
        WV_CO_TRY(auto request, co_await publication_request(sql_, name_));
        auto plan = plan_publication(request, patterns_);
        if (!plan) co_return fail(std::move(plan).error());
        const bool first = !before;
        if (first) {
            before = request;
            in_danger = plan->in_danger;
        }
        const bool lacking = !plan->first.empty() || !plan->options.empty() ||
                             std::any_of(plan->leaving.begin(), plan->leaving.end(),
                                         [this](const MembershipChange& change) {
                                             return change.in_danger && !is_waiting(change);
                                         });
        const bool wanted = first || again_ || lacking;
        if (!wanted || (round > kRounds && !lacking)) {
            conclude(*before, request, std::move(*plan));
            applied_.plan.in_danger = std::move(in_danger);
            co_return std::move(applied_);
        }
        if (round > kRounds)
            co_return fail(Errc::busy, "the tables change faster than they can be published");
        WV_CO_CHECK(co_await carry_out(std::move(*plan)));
    }
}

}  // namespace

Task<Result<PublicationRequest>> publication_request(Connection& sql, std::string name) {
    PublicationRequest request;
    request.server_major = server_major_of(static_cast<unsigned>(sql.server_version_num()));
    WV_CO_TRY(auto role, co_await sql.query_one("SELECT current_user"));
    request.role = text_at(role, 0, 0);
    WV_CO_TRY(request.tables, co_await read_tables(sql, ""));
    WV_CO_TRY(request.all_changes, co_await read_publication(sql, name, false));
    WV_CO_TRY(request.inserts, co_await read_publication(sql, inserts_publication(name), true));
    request.name = std::move(name);
    co_return request;
}

Task<Result<AppliedPublication>> apply_publication(Connection& sql, std::string name,
                                                   const TablePatterns& patterns,
                                                   std::chrono::milliseconds lock_timeout) {
    const std::string doing = fmt::format("publish tables in \"{}\"", name);
    Publisher publisher(sql, std::move(name), patterns, lock_timeout);
    auto applied = co_await publisher.run();
    if (!applied) co_return fail_while(doing, std::move(applied).error());
    co_return applied;
}

Task<Result<>> drop_publication(Connection& sql, std::string name) {
    auto dropped = co_await sql.query(
        fmt::format("BEGIN READ WRITE; DROP PUBLICATION IF EXISTS {}, {}; COMMIT",
                    quote_identifier(name), quote_identifier(inserts_publication(name))));
    if (dropped) co_return Result<>();
    (void)co_await sql.query("ROLLBACK");
    co_return fail_while("drop the publication \"" + name + "\"", std::move(dropped).error());
}

}  // namespace walvault::wal
