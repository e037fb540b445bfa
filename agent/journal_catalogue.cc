// What the catalogue says to a row journal: which tables are published and how, and what a table
// that the stream names is.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <tuple>

#include "agent/journal_session.h"
#include "base/log.h"
#include "storage/repository_files.h"
#include "wal/publication_apply.h"
#include "wal/query_rows.h"

namespace walvault::agent {
namespace {

constexpr std::chrono::milliseconds kLockTimeout{900};
constexpr std::chrono::seconds kCatalogueAnswer{60};
// Types with lower oids are the server's own.
constexpr std::uint32_t kFirstUserOid = 16384;

// 0 for what is no number.
std::uint32_t oid_of(const std::string& text) {
    std::uint32_t oid = 0;
    std::from_chars(text.data(), text.data() + text.size(), oid);
    return oid;
}

std::string what_is_missing(const wal::TableVerdict& verdict) {
    return fmt::format(
        "{} {}: {}{}{}", verdict.table,
        verdict.journaled == wal::Journaled::left_out ? "is left out" : "has its inserts only",
        verdict.reason, verdict.mend.empty() ? "" : "; ", verdict.mend);
}

// The texts of an array as the server writes it: {a,"b c"}.
std::set<std::string> names_of(const std::string& array) {
    std::set<std::string> names;
    std::string name;
    bool quoted = false, any = false;
    for (std::size_t i = 1; i + 1 < array.size(); ++i) {
        const char c = array[i];
        if (c == '\\' && i + 2 < array.size()) {
            name += array[++i];
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            names.insert(std::exchange(name, ""));
            continue;
        } else {
            name += c;
        }
        any = true;
    }
    if (any) names.insert(name);
    return names;
}

// What a table is a partition of, its primary key, and what its generated columns are called. A key
// that is checked late tells no rows apart between two changes.
Task<Result<TableFacts>> table_facts(wal::Connection& sql, std::uint32_t oid) {
    std::string query = fmt::format(
        "SELECT CASE WHEN r.oid <> c.oid THEN n.nspname END, CASE WHEN r.oid <> c.oid THEN "
        "r.relname "
        "END, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute "
        "a "
        "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = c.oid AND "
        "i.indisprimary AND i.indimmediate AND i.indisvalid)::text, ARRAY(SELECT a.attname::text "
        "FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND "
        "a.attgenerated <> '')::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_class r ON "
        "r.oid = "
        "coalesce(pg_catalog.pg_partition_root(c.oid), c.oid) JOIN pg_catalog.pg_namespace n ON "
        "n.oid "
        "= r.relnamespace WHERE c.oid = {}",
        oid);
    WV_CO_TRY(const wal::QueryResult found, co_await sql.query_one(std::move(query)));
    TableFacts facts;
    facts.is_gone = found.rows.empty();
    if (facts.is_gone) co_return facts;
    const auto& row = found.rows[0];
    facts.root_schema = row[0].value_or("");
    facts.root_table = row[1].value_or("");
    facts.primary_key = names_of(row[2].value_or("{}"));
    facts.generated = names_of(row[3].value_or("{}"));
    co_return facts;
}

Task<Result<>> know_types(wal::Connection& sql, const pgoutput::Relation& relation,
                          std::map<std::uint32_t, std::string>& known) {
    std::string wanted;
    for (const pgoutput::Column& column : relation.columns)
        if (!known.contains(column.type))
            wanted += fmt::format("{}{}", wanted.empty() ? "" : ",", column.type);
    if (wanted.empty()) co_return Result<>{};
    std::string query = fmt::format(
        "SELECT oid::text, pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type "
        "WHERE oid < {} OR oid IN ({})",
        kFirstUserOid, wanted);
    WV_CO_TRY(const wal::QueryResult types, co_await sql.query_one(std::move(query)));
    for (const auto& row : types.rows)
        if (row[0] && row[1]) known[oid_of(*row[0])] = *row[1];
    co_return Result<>{};
}

}  // namespace

// A server of 18 sends nothing of a publication that is gone, and says nothing: what was changed
// meanwhile is not in the journal. Older ones fail, and go on failing.
Task<Result<>> JournalCapture::look_for_publications(wal::Connection& sql) {
    std::string query =
        fmt::format("SELECT count(*) FROM pg_catalog.pg_publication WHERE pubname IN ({}, {})",
                    wal::quote_literal(server_.journal.slot),
                    wal::quote_literal(wal::inserts_publication(server_.journal.slot)));
    WV_CO_TRY(const wal::QueryResult found, co_await sql.query_one(std::move(query)));
    const bool both = found.rows.size() == 1 && found.rows[0][0] == "2";
    if (!both) slot_unusable_ = "the journal's publication was dropped";
    co_return Result<>{};
}

// Publications first: decoding looks at the catalogue as it was at the change.
Task<Result<>> JournalCapture::look_at_catalogue(wal::Connection& sql) {
    const Lsn now = pipeline_.is_running() ? pipeline_.stored_lsn()
                    : journals_.empty()    ? Lsn{}
                                           : journals_.front().end_lsn;
    std::vector<std::uint32_t> looked_at;
    for (const auto& [oid, table] : read_tables_)
        looked_at.push_back(oid);
    // Each says something that is not to be missed because the other one fails.
    const auto published = co_await publish_tables(sql);
    WV_CO_CHECK(co_await look_at_forms(sql));
    if (!published) co_return published;
    for (const std::uint32_t oid : looked_at)
        if (auto table = read_tables_.find(oid); table != read_tables_.end())
            table->second.was_looked_at = true;
    co_return co_await note_whole_look(now);
}

Task<Result<>> JournalCapture::note_whole_look(Lsn lsn) {
    whole_look_lsn_ = lsn;
    if (journals_.empty()) co_return Result<>{};
    auto note = [this, id = journals_.front().id, lsn] {
        return services_.repository.note_looked(id, lsn);
    };
    co_return co_await run_on(services_.store, std::move(note));
}

Task<Result<>> JournalCapture::publish_tables(wal::Connection& sql) {
    WV_CO_TRY(const wal::TablePatterns patterns, wal::TablePatterns::parse(server_.journal.tables));
    const std::string name = server_.journal.slot;
    WV_CO_TRY(const wal::PublicationRequest request, co_await wal::publication_request(sql, name));
    WV_CO_TRY(const wal::PublicationPlan plan, wal::plan_publication(request, patterns));
    if (plan.changes_nothing()) {
        note_verdicts(plan);
        co_return Result<>{};
    }
    const std::string cause = "not all of its changes were published";
    // Before it is done: a crash must not forget it.
    leave(tables_left_by(request.all_changes.members, plan.all_changes), plan.verdicts, cause);
    WV_CO_CHECK(co_await enter_left(sql));
    WV_CO_TRY(const wal::AppliedPublication applied,
              co_await wal::apply_publication(sql, name, patterns, kLockTimeout));
    leave(applied.left, applied.plan.verdicts, cause);
    spoilt_.insert(applied.joined.begin(), applied.joined.end());
    note_verdicts(applied.plan);
    co_return co_await enter_left(sql);
}

// What rows that nothing changed have now, only the table itself tells.
Task<Result<>> JournalCapture::look_at_forms(wal::Connection& sql) {
    std::vector<std::uint32_t> known;
    for (const auto& [oid, table] : read_tables_)
        if (table.form) known.push_back(oid);
    WV_CO_TRY(const auto versions, co_await wal::table_versions(sql, std::move(known)));
    std::vector<std::uint32_t> altered;
    for (const auto& [oid, version] : versions)
        if (read_tables_.contains(oid) && read_tables_[oid].version != version)
            altered.push_back(oid);
    if (altered.empty()) co_return co_await enter_left(sql);
    WV_CO_TRY(const auto forms, co_await wal::table_forms(sql, std::move(altered)));
    for (const auto& [oid, form] : forms) {
        auto table = read_tables_.find(oid);
        if (table == read_tables_.end() || !table->second.form) continue;
        switch (wal::compare_forms(*table->second.form, form)) {
            case wal::FormChange::none:
                table->second.form = form;
                table->second.version = versions.at(oid);
                break;
            case wal::FormChange::columns:
                read_tables_.erase(table);
                break;
            case wal::FormChange::rewritten:
                owed_left_.emplace(oid, "its rows may have been rewritten by an ALTER TABLE");
        }
    }
    co_return co_await enter_left(sql);
}

// Those that go, and those that come: what has a snapshot was here before.
std::vector<std::uint32_t> JournalCapture::tables_left_by(
    const std::vector<std::uint32_t>& members, const std::vector<std::uint32_t>& planned) const {
    std::vector<std::uint32_t> left;
    const std::set<std::uint32_t> before(members.begin(), members.end());
    const std::set<std::uint32_t> after(planned.begin(), planned.end());
    std::set_symmetric_difference(before.begin(), before.end(), after.begin(), after.end(),
                                  std::back_inserter(left));
    return left;
}

// Of a partitioned table these are its partitions.
void JournalCapture::leave(const std::vector<std::uint32_t>& tables,
                           const std::vector<wal::TableVerdict>& verdicts,
                           const std::string& cause) {
    std::set<std::uint32_t> all(tables.begin(), tables.end());
    for (const wal::TableVerdict& verdict : verdicts)
        if (verdict.root != 0 && all.contains(verdict.root)) all.insert(verdict.oid);
    spoilt_.insert(all.begin(), all.end());
    for (const std::uint32_t oid : all)
        if (read_tables_.contains(oid)) owed_left_.emplace(oid, cause);
}

// What happened to them since they were last looked at may not have been decoded; their rows are
// read anew when all changes are journaled again.
Task<Result<>> JournalCapture::enter_left(wal::Connection& sql) {
    if (owed_left_.empty()) co_return Result<>{};
    // A snapshot that is taken from here on is later than this.
    WV_CO_TRY(const wal::QueryResult at,
              co_await sql.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()"));
    WV_CO_TRY(const Lsn to, parse_lsn(wal::text_at(at, 0, 0)));
    std::optional<Lsn> looked = whole_look_lsn_;
    if (!looked && !journals_.empty()) {
        auto look = [this, id = journals_.front().id] {
            return services_.repository.looked_until(id);
        };
        WV_CO_TRY(looked, co_await run_on(services_.store, std::move(look)));
    }
    while (!owed_left_.empty()) {
        const auto [oid, cause] = *owed_left_.begin();
        if (auto table = read_tables_.find(oid); table != read_tables_.end()) {
            Lsn from = table->second.lsn;
            if (looked && table->second.was_looked_at) from = std::max(from, *looked);
            WV_CO_CHECK(co_await enter_left(oid, from, to, cause));
        }
        read_tables_.erase(oid);
        owed_left_.erase(oid);
    }
    co_return Result<>{};
}

Task<Result<>> JournalCapture::enter_left(std::uint32_t table_oid, Lsn from_lsn, Lsn to_lsn,
                                          std::string cause) {
    for (const storage::JournalRecord& journal : journals_) {
        pb::JournalTableLeft left;
        left.set_cluster(ground_.cluster.name);
        left.set_journal_id(storage::text_of(journal.id));
        left.set_table_oid(table_oid);
        left.set_from_lsn(from_lsn.value);
        left.set_to_lsn(to_lsn.value);
        left.set_cause(cause);
        auto enter = [this, left = std::move(left)] {
            return services_.repository.enter_table_left(left);
        };
        WV_CO_CHECK(co_await run_on(services_.store, std::move(enter)));
    }
    co_return Result<>{};
}

void JournalCapture::note_verdicts(const wal::PublicationPlan& plan) {
    status_.verdicts = plan.verdicts;
    if (server_.journal.snapshots) status_.waiting_snapshots = tables_to_read().size();
    std::string missing;
    std::size_t whole = 0;
    std::size_t inserts = 0;
    for (const wal::TableVerdict& verdict : plan.verdicts) {
        if (verdict.journaled == wal::Journaled::all_changes) {
            ++whole;
            continue;
        }
        if (verdict.journaled == wal::Journaled::inserts_only) ++inserts;
        missing += (missing.empty() ? "" : "; ") + what_is_missing(verdict);
    }
    metrics_.tables.set(static_cast<double>(whole));
    metrics_.tables_inserts_only.set(static_cast<double>(inserts));
    metrics_.tables_left_out.set(static_cast<double>(plan.verdicts.size() - whole - inserts));
    if (missing == warned_of_tables_) return;
    warned_of_tables_ = missing;
    if (!missing.empty())
        log::warn("journal.tables_not_whole", "not all changes of some tables are journaled",
                  {{"database", database_}, {"tables", missing}});
}

Task<Result<TableFacts>> JournalCapture::facts_of(Catalogue& catalogue,
                                                  const pgoutput::Relation& relation) {
    // A server that is gone is noticed by nobody else meanwhile.
    const wal::Silence silence(services_.executor, hangup_, kCatalogueAnswer);
    if (!catalogue.sql) {
        wal::DatabaseOptions options = database_options("walvault journal catalogue");
        WV_CO_TRY(wal::LogicalSession opened, co_await wal::connect_to_database(
                                                  std::move(options), wal::Connection::Mode::sql));
        catalogue.sql = std::move(opened.connection);
    }
    WV_CO_TRY(TableFacts facts, co_await table_facts(*catalogue.sql, relation.oid));
    if (!facts.root_table.empty()) roots_[relation.oid] = {facts.root_schema, facts.root_table};
    if (auto root = roots_.find(relation.oid); root != roots_.end()) {
        std::tie(facts.root_schema, facts.root_table) = root->second;
        facts.is_gone = false;
    }
    // What was sent counts where the catalogue has changed since.
    if (relation.identity == pgoutput::ReplicaIdentity::by_default) {
        facts.primary_key.clear();
        for (const pgoutput::Column& column : relation.columns)
            if (column.in_key) facts.primary_key.insert(std::string(column.name));
    }
    WV_CO_CHECK(co_await know_types(*catalogue.sql, relation, catalogue.type_names));
    for (const pgoutput::Column& column : relation.columns)
        // One that was dropped meanwhile has no name.
        if (auto name = catalogue.type_names.find(column.type); name != catalogue.type_names.end())
            facts.type_names[column.type] = name->second;
    co_return facts;
}

}  // namespace walvault::agent
