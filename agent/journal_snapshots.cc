// The rows that a table has when its journal begins: read once, beside the stream, under a snapshot
// that a temporary slot exports.
#include <fmt/format.h>

#include "agent/journal_session.h"
#include "base/crc32c.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// When what could not be read is tried again.
constexpr std::chrono::seconds kAgainAfter{10};
constexpr std::chrono::seconds kLookEvery{2};
constexpr std::chrono::seconds kSlotWait{60};
constexpr std::string_view kRowsApplication = "walvault journal rows";

std::optional<wal::TableForm> form_of(const pb::SnapshotTaken& taken) {
    if (taken.filenode() == 0) return std::nullopt;
    return wal::TableForm{taken.filenode(), taken.columns(), taken.column_versions()};
}

pb::SnapshotTaken snapshot_of(std::uint32_t table_oid, Lsn lsn, WallTime at,
                              const wal::TableForm& form) {
    pb::SnapshotTaken taken;
    taken.set_table_oid(table_oid);
    taken.set_lsn(lsn.value);
    taken.set_at_us(at.time_since_epoch().count());
    taken.set_filenode(form.filenode);
    taken.set_columns(form.columns);
    taken.set_column_versions(form.column_versions);
    return taken;
}

}  // namespace

// What was read before the last gap is no start for what lies behind it.
Task<Result<>> JournalCapture::know_snapshots() {
    auto look = [this, journals = journals_]() -> Result<std::map<std::uint32_t, ReadTable>> {
        std::map<std::uint32_t, ReadTable> known;
        for (const storage::JournalRecord& journal : journals) {
            WV_TRY(const auto gaps, services_.repository.journal_gaps(journal.id));
            const std::uint64_t from = gaps.empty() ? 0 : gaps.back().to_lsn();
            std::map<std::uint32_t, std::uint64_t> left;
            WV_TRY(const auto entered, services_.repository.tables_left(journal.id));
            for (const pb::JournalTableLeft& each : entered)
                left[each.table_oid()] = std::max(left[each.table_oid()], each.to_lsn());
            WV_TRY(const auto snapshots, services_.repository.last_snapshots(journal.id));
            for (const pb::SnapshotTaken& taken : snapshots)
                if (taken.lsn() >= from &&
                    (!left.contains(taken.table_oid()) || taken.lsn() > left[taken.table_oid()]))
                    known[taken.table_oid()] = {Lsn{taken.lsn()}, form_of(taken), {}, true};
        }
        return known;
    };
    WV_CO_TRY(read_tables_, co_await run_on(services_.store, std::move(look)));
    // It is not known up to where these are whole: no further than they were read.
    for (const auto& [oid, cause] : owed_left_)
        if (auto table = read_tables_.find(oid); table != read_tables_.end())
            table->second.was_looked_at = false;
    co_return Result<>{};
}

std::vector<std::uint32_t> JournalCapture::tables_to_read() const {
    std::vector<std::uint32_t> tables;
    for (const wal::TableVerdict& verdict : status_.verdicts)
        // A partitioned table has no rows of its own, and those of one whose updates are not
        // journaled would be no start for anything.
        if (verdict.journaled == wal::Journaled::all_changes && !verdict.partitioned &&
            !read_tables_.contains(verdict.oid))
            tables.push_back(verdict.oid);
    return tables;
}

Task<> JournalCapture::snapshot_loop(Session& session) {
    if (!server_.journal.snapshots) co_return;
    std::string told;
    while (!session.over) {
        status_.waiting_snapshots = tables_to_read().size();
        metrics_.snapshots_waiting.set(static_cast<double>(status_.waiting_snapshots));
        SteadyTime next = services_.clock.steady_now() + kLookEvery;
        if (status_.waiting_snapshots > 0) {
            auto taken = co_await take_snapshots(session);
            if (!taken && !session.over && taken.error().message != told)
                log::warn("journal.snapshot_failed", taken.error().message,
                          {{"database", database_}, {"hint", taken.error().hint}});
            told = taken ? "" : taken.error().message;
            if (!taken) next = services_.clock.steady_now() + kAgainAfter;
            if (taken) continue;
        }
        while (!session.over && services_.clock.steady_now() < next)
            co_await wait_for(session.changed, next - services_.clock.steady_now());
    }
}

// With the checksum alone, so that no database's own slot is called so.
std::string JournalCapture::rows_slot_name() const {
    return fmt::format("{}_rows_{:08x}", server_.journal.slot, crc32c(as_bytes(database_)));
}

// Its lock lets all pass but TRUNCATE and DDL of its table, and what queues behind these; its slot
// holds back WAL. Whoever waits, or a disk that gets full, goes first: it is read again later.
Task<Result<>> JournalCapture::let_others_pass(Session& session, wal::Connection& sql,
                                               const wal::DatabaseFacts& facts) {
    if (session.reading == nullptr) co_return Result<>{};
    const wal::LogicalSlot* slot = facts.slot(rows_slot_name());
    const bool holds_too_much = slot != nullptr && server_.journal.slot_give_up_bytes &&
                                slot->retained_bytes > *server_.journal.slot_give_up_bytes;
    WV_CO_TRY(const wal::QueryResult waiting,
              co_await sql.query_one(
                  fmt::format("SELECT count(*) FROM pg_catalog.pg_stat_activity r JOIN "
                              "pg_catalog.pg_stat_activity w ON r.pid = ANY "
                              "(pg_catalog.pg_blocking_pids(w.pid)) WHERE r.datname = "
                              "pg_catalog.current_database() AND r.application_name = '{}'",
                              kRowsApplication)));
    const bool blocks = waiting.rows.size() == 1 && waiting.rows[0][0] != "0";
    if ((!blocks && !holds_too_much) || session.reading == nullptr) co_return Result<>{};
    log::info("journal.reading_gives_way",
              blocks ? "another session waits for the table that is being read"
                     : "the slot of the snapshot holds back too much WAL",
              {{"database", database_}, {"table", status_.snapshot_of}});
    session.reading->close();
    co_return Result<>{};
}

Task<Result<>> JournalCapture::take_snapshots(Session& session) {
    spoilt_.clear();
    // Those of the catalogue as of now: one that is made later is not in the snapshot.
    std::vector<std::uint32_t> tables = tables_to_read();
    wal::DatabaseOptions options = database_options("walvault journal snapshot");
    WV_CO_TRY(wal::LogicalSession exporting,
              co_await wal::connect_to_database(std::move(options),
                                                wal::Connection::Mode::database_replication));
    wal::LogicalSlotOptions slot;
    slot.slot = rows_slot_name();
    slot.temporary = true;
    slot.wait_timeout = kSlotWait;
    WV_CO_TRY(wal::CreatedSlot made,
              co_await wal::create_logical_slot(*exporting.connection, std::move(slot)));
    // After a failover the server may be behind what the journal had of another one: a snapshot
    // from before the end of a gap is no start for what comes behind it.
    if (made.consistent_lsn < session.began_lsn)
        co_return fail(Errc::unavailable,
                       "the server's WAL is at " + to_string(made.consistent_lsn) +
                           ", before where the journal goes on, " + to_string(session.began_lsn),
                       "the tables are read when it has passed that");
    co_return co_await read_tables(session, std::move(made), std::move(tables));
}

Task<Result<>> JournalCapture::read_tables(Session& session, wal::CreatedSlot slot,
                                           std::vector<std::uint32_t> tables) {
    wal::TableSnapshot::Options options;
    options.database = database_options(std::string(kRowsApplication));
    options.snapshot_name = slot.snapshot_name;
    JournalRouter router(router_options(), std::vector<Lsn>(journals_.size()));
    std::unique_ptr<wal::TableSnapshot> rows;
    Result<> later;
    for (const std::uint32_t table : tables) {
        if (session.over) break;
        if (!rows) {
            wal::TableSnapshot::Options again = options;
            WV_CO_TRY(rows, co_await wal::TableSnapshot::open(std::move(again)));
        }
        session.reading = rows.get();
        auto read = co_await read_table(session, *rows, router, table, slot.consistent_lsn);
        session.reading = nullptr;
        if (read) continue;
        // Of no more use after an error; the other tables need not wait for this one.
        rows.reset();
        if (read.error().code == Errc::not_found || read.error().code == Errc::refused) {
            read_tables_[table] = {slot.consistent_lsn, {}, {}};
            if (read.error().code == Errc::refused)
                log::warn("journal.rows_refused", read.error().message, {{"database", database_}});
            continue;
        }
        later = std::move(read);
        if (later.error().code != Errc::busy) break;
    }
    session.read.sql.reset();
    status_.snapshot_of.clear();
    co_return later;
}

Task<Result<>> JournalCapture::read_table(Session& session, wal::TableSnapshot& rows,
                                          JournalRouter& router, std::uint32_t table_oid, Lsn lsn) {
    const auto spoilt = [&]() -> Result<> {
        if (!spoilt_.contains(table_oid)) return {};
        return fail(Errc::busy, "the publication of a table changed while it was read",
                    "it is read again");
    };
    WV_CO_CHECK(spoilt());
    WV_CO_TRY(const pgoutput::Relation relation, co_await rows.begin(table_oid));
    status_.snapshot_of = std::string(relation.schema) + "." + std::string(relation.name);
    WV_CO_TRY(const TableFacts facts, co_await facts_of(session.read, relation));
    WV_CO_CHECK(router.take_relation(relation, facts));
    const wal::TableForm form = rows.form();
    auto begin = [this, journal = journals_[router.journal_of(table_oid)],
                  taken = snapshot_of(table_oid, lsn, services_.clock.now(), form)] {
        return services_.repository.begin_snapshot(journal, ground_.cluster, timeline_, taken);
    };
    WV_CO_TRY(auto made, co_await run_on(services_.store, std::move(begin)));
    auto writer = std::make_shared<std::unique_ptr<storage::SnapshotWriter>>(std::move(made));
    WV_CO_CHECK(co_await keep_rows(session, rows, router, table_oid, writer));
    WV_CO_CHECK(spoilt());
    const std::uint64_t count = (*writer)->row_count();
    auto take = [this, writer] { return services_.repository.take_snapshot(std::move(*writer)); };
    WV_CO_CHECK(co_await run_on(services_.store, std::move(take)));
    read_tables_[table_oid] = {lsn, form, {}};
    // Meanwhile: the next look says so.
    if (auto still = spoilt(); !still) owed_left_.emplace(table_oid, still.error().message);
    log::info("journal.table_read", "its journal starts from a known state",
              {{"database", database_}, {"table", status_.snapshot_of}, {"rows", count}});
    co_return Result<>{};
}

Task<Result<>> JournalCapture::keep_rows(Session& session, wal::TableSnapshot& rows,
                                         JournalRouter& router, std::uint32_t table_oid,
                                         SharedSnapshot writer) {
    BatchWriter batches;
    batches.mention(router.relation(table_oid));
    for (bool more = true; more;) {
        WV_CO_TRY(const std::optional<pgoutput::Tuple> row, co_await rows.next());
        more = row.has_value();
        if (row) {
            WV_CO_TRY(const ByteSpan tuple, router.encode_row(table_oid, *row));
            batches.row(router.relation(table_oid), tuple);
        }
        for (;;) {
            std::optional<JournalBatch> batch = more ? batches.take_full() : batches.take();
            if (!batch) break;
            auto append = [writer, batch = std::move(*batch)] { return (*writer)->append(batch); };
            WV_CO_CHECK(co_await run_on(disk_, std::move(append)));
        }
        if (session.over) co_return fail(Errc::cancelled, "the session ended");
    }
    co_return Result<>{};
}

}  // namespace walvault::agent
