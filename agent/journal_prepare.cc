// How a session of the row journal begins: what the server and the catalogue say, publications and
// slot, where the journal goes on.
#include <fmt/format.h>

#include "agent/journal_session.h"
#include "agent/render.h"
#include "base/log.h"
#include "storage/repository_files.h"
#include "wal/server_facts.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kLockTimeout{2000};
constexpr std::chrono::seconds kSlotWait{60};
constexpr std::chrono::milliseconds kLookForCluster{200};
// Types with lower oids are the server's own.
constexpr std::uint32_t kFirstUserOid = 16384;

JournalSlotSide side_of(const wal::LogicalSlot* slot, const std::string& unusable) {
    JournalSlotSide side;
    if (slot == nullptr) return side;
    side.exists = true;
    side.unusable = slot->lost() ? "the server has invalidated the journal's slot" : unusable;
    if (slot->confirmed_flush_lsn) side.confirmed_flush_lsn = *slot->confirmed_flush_lsn;
    return side;
}

std::string what_is_missing(const wal::TableVerdict& verdict) {
    return fmt::format(
        "{} {}: {}{}{}", verdict.table,
        verdict.journaled == wal::Journaled::left_out ? "is left out" : "has its inserts only",
        verdict.reason, verdict.mend.empty() ? "" : "; ", verdict.mend);
}

}  // namespace

JournalCapture::Session::Session(JournalCapture& capture)
    : staging(capture.disk_, posix_file_system(), capture.services_.repository.root(),
              capture.server_.journal.staging_bytes),
      tasks(capture.services_.executor),
      changed(capture.services_.executor) {}

Task<Result<>> JournalCapture::begin_session(Session& session) {
    WV_CO_CHECK(co_await know_cluster());
    WV_CO_CHECK(co_await prepare());
    wal::LogicalReceiver::Options options;
    options.database = database_options("walvault journal");
    options.slot = status_.slot;
    options.publications = {server_.journal.slot, wal::inserts_publication(server_.journal.slot)};
    options.streaming = streams_;
    WV_CO_TRY(session.receiver,
              co_await wal::LogicalReceiver::attach(std::move(options), services_.clock));
    timeline_ = session.receiver->identity().system.timeline;
    if (!pipeline_.is_running()) {
        std::vector<storage::JournalRecord> journals = journals_;
        WV_CO_CHECK(co_await pipeline_.begin(std::move(journals), cluster_, timeline_));
    }
    JournalRouter::Options router = router_options();
    session.router.emplace(std::move(router), pipeline_.ends());
    session.taken_lsn = session.flushing_lsn = pipeline_.stored_lsn();
    session.last_quiet_at = services_.clock.steady_now();
    status_.stored_lsn = pipeline_.stored_lsn();
    auto started = co_await session.receiver->start(pipeline_.stored_lsn());
    if (!started) note_trouble(session, started.error());
    co_return started;
}

// The physical stream says which cluster it is, and whether it is the repository's.
Task<Result<>> JournalCapture::know_cluster() {
    for (;;) {
        if (stopping_) co_return fail(Errc::cancelled, "the agent is ending");
        if (const auto cluster = services_.cluster()) {
            cluster_ = *cluster;
            co_return Result<>{};
        }
        co_await wait_for(stopped_, kLookForCluster);
    }
}

Task<Result<>> JournalCapture::prepare() {
    wal::DatabaseOptions options = database_options("walvault journal set-up");
    WV_CO_TRY(wal::LogicalSession sql,
              co_await wal::connect_to_database(std::move(options), wal::Connection::Mode::sql));
    WV_CO_TRY(const wal::DatabaseFacts facts, co_await wal::database_facts(*sql.connection));
    WV_CO_CHECK(wal::check_journal_possible(facts));
    WV_CO_CHECK(co_await know_journals());
    if (!journals_.empty()) WV_CO_CHECK(co_await look_for_publications(*sql.connection));
    WV_CO_CHECK(co_await look_at_catalogue(*sql.connection));
    std::optional<Lsn> end;
    if (!journals_.empty()) end = journals_.front().end_lsn;
    if (pipeline_.is_running()) end = pipeline_.stored_lsn();
    const JournalSlotSide side = side_of(facts.slot(status_.slot), slot_unusable_);
    WV_CO_CHECK(co_await settle(*sql.connection, choose_journal_attachment(end, side)));
    slot_unusable_.clear();
    co_return Result<>{};
}

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
    WV_CO_TRY(const wal::TablePatterns patterns, wal::TablePatterns::parse(server_.journal.tables));
    std::string name = server_.journal.slot;
    WV_CO_TRY(const wal::AppliedPublication applied,
              co_await wal::apply_publication(sql, std::move(name), patterns, kLockTimeout));
    note_verdicts(applied.plan);
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

Task<Result<>> JournalCapture::know_journals() {
    auto look = [this] { return services_.repository.journals(cluster_.name); };
    WV_CO_TRY(std::vector<storage::JournalRecord> all,
              co_await run_on(services_.store, std::move(look)));
    journals_.clear();
    std::vector<std::string> names{""};
    for (const ClassConfig& each : classes_)
        names.push_back(each.name);
    for (const std::string& name : names)
        for (const storage::JournalRecord& record : all)
            if (record.database == database_ && record.data_class == name)
                journals_.push_back(record);
    co_return Result<>{};
}

Task<Result<>> JournalCapture::open_missing(Lsn start) {
    std::vector<std::string> names{""};
    for (const ClassConfig& each : classes_)
        names.push_back(each.name);
    bool opened = false;
    for (const std::string& name : names) {
        const bool known = std::any_of(
            journals_.begin(), journals_.end(),
            [&](const storage::JournalRecord& each) { return each.data_class == name; });
        if (known) continue;
        pb::JournalOpened journal;
        journal.set_cluster(cluster_.name);
        journal.set_database(database_);
        journal.set_data_class(name);
        journal.set_slot(status_.slot);
        journal.set_publication(server_.journal.slot);
        journal.set_start_lsn(start.value);
        auto open = [this, journal = std::move(journal)] {
            return services_.repository.open_journal(journal);
        };
        WV_CO_CHECK(co_await run_on(services_.store, std::move(open)));
        opened = true;
    }
    if (opened) WV_CO_CHECK(co_await know_journals());
    co_return Result<>{};
}

Task<Result<>> JournalCapture::enter_gap(Lsn to_lsn, std::string cause) {
    // The tails end before a gap begins.
    WV_CO_CHECK(co_await pipeline_.finish());
    WV_CO_CHECK(co_await know_journals());
    for (const storage::JournalRecord& journal : journals_) {
        pb::JournalGap gap;
        gap.set_cluster(cluster_.name);
        gap.set_journal_id(storage::text_of(journal.id));
        gap.set_from_lsn(journals_.front().end_lsn.value);
        gap.set_to_lsn(to_lsn.value);
        gap.set_cause(cause);
        gap.set_to_at_us(services_.clock.now().time_since_epoch().count());
        auto enter = [this, gap = std::move(gap)] {
            return services_.repository.enter_journal_gap(gap);
        };
        WV_CO_CHECK(co_await run_on(services_.store, std::move(enter)));
    }
    metrics_.gaps_total.add();
    log::error("journal.gap", "changes are missing in the row journal: " + cause,
               {{"database", database_},
                {"from_lsn", to_string(journals_.front().end_lsn)},
                {"to_lsn", to_string(to_lsn)}});
    co_return co_await know_journals();
}

Task<Result<>> JournalCapture::settle(wal::Connection& sql, JournalAttachment attachment) {
    Lsn start;
    std::string gap;
    if (const auto* go_on = std::get_if<ContinueJournal>(&attachment)) start = go_on->from_lsn;
    if (const auto* adopt = std::get_if<AdoptJournalSlot>(&attachment)) start = adopt->start_lsn;
    if (const auto* behind = std::get_if<JournalBehind>(&attachment)) {
        start = behind->to_lsn;
        gap = behind->cause;
    }
    if (auto* make = std::get_if<MakeJournalSlot>(&attachment)) {
        gap = make->cause;
        WV_CO_TRY(start, co_await make_slot(sql, std::move(*make)));
    }
    if (!gap.empty() && !journals_.empty()) {
        // A slot may begin below what is stored, where somebody dropped one that was ahead.
        const Lsn end = pipeline_.is_running() ? pipeline_.stored_lsn() : journals_.front().end_lsn;
        WV_CO_CHECK(co_await enter_gap(std::max(start, end), std::move(gap)));
    }
    co_return co_await open_missing(journals_.empty() ? start : journals_.front().end_lsn);
}

Task<Result<Lsn>> JournalCapture::make_slot(wal::Connection& sql, MakeJournalSlot make) {
    if (make.drop_first) {
        std::string slot = status_.slot;
        WV_CO_CHECK(co_await wal::drop_slot_by_sql(sql, std::move(slot)));
    }
    wal::DatabaseOptions options = database_options("walvault journal slot");
    WV_CO_TRY(wal::LogicalSession replication,
              co_await wal::connect_to_database(std::move(options),
                                                wal::Connection::Mode::database_replication));
    wal::LogicalSlotOptions wanted;
    wanted.slot = status_.slot;
    wanted.failover = true;
    wanted.wait_timeout = kSlotWait;
    WV_CO_TRY(const wal::CreatedSlot made,
              co_await wal::create_logical_slot(*replication.connection, std::move(wanted)));
    log::info("journal.slot_made", "changes of transactions that commit from here on are journaled",
              {{"database", database_},
               {"slot", status_.slot},
               {"from_lsn", to_string(made.consistent_lsn)}});
    co_return made.consistent_lsn;
}

// The primary key where the identity is another one, and what types are called.
Task<Result<TableFacts>> JournalCapture::facts_of(Catalogue& catalogue,
                                                  const pgoutput::Relation& relation) {
    TableFacts facts;
    const bool by_primary_key = relation.identity == pgoutput::ReplicaIdentity::by_default;
    std::string wanted;
    for (const pgoutput::Column& column : relation.columns) {
        if (by_primary_key && column.in_key) facts.primary_key.insert(std::string(column.name));
        if (!catalogue.type_names.contains(column.type))
            wanted += fmt::format("{}{}", wanted.empty() ? "" : ",", column.type);
    }
    if (!catalogue.sql && (!wanted.empty() || !by_primary_key)) {
        wal::DatabaseOptions options = database_options("walvault journal catalogue");
        WV_CO_TRY(wal::LogicalSession opened, co_await wal::connect_to_database(
                                                  std::move(options), wal::Connection::Mode::sql));
        catalogue.sql = std::move(opened.connection);
    }
    if (!wanted.empty()) {
        std::string query = fmt::format(
            "SELECT oid::text, pg_catalog.format_type(oid, NULL) FROM pg_catalog.pg_type "
            "WHERE oid < {} OR oid IN ({})",
            kFirstUserOid, wanted);
        WV_CO_TRY(const wal::QueryResult types,
                  co_await catalogue.sql->query_one(std::move(query)));
        for (const auto& row : types.rows)
            if (row[0] && row[1])
                catalogue.type_names[static_cast<std::uint32_t>(std::stoul(*row[0]))] = *row[1];
    }
    if (!by_primary_key) {
        std::string query = fmt::format(
            "SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a "
            "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
            "WHERE i.indrelid = {} AND i.indisprimary",
            relation.oid);
        WV_CO_TRY(const wal::QueryResult key, co_await catalogue.sql->query_one(std::move(query)));
        for (const auto& row : key.rows)
            if (row[0]) facts.primary_key.insert(*row[0]);
    }
    for (const pgoutput::Column& column : relation.columns) {
        // One that was dropped meanwhile has no name.
        const std::string& name = catalogue.type_names[column.type];
        if (!name.empty()) facts.type_names[column.type] = name;
    }
    co_return facts;
}

}  // namespace walvault::agent
