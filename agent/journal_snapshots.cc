// The rows that a table has when its journal begins: read once, beside the stream, under a snapshot
// that a temporary slot exports.
#include "agent/journal_session.h"
#include "base/log.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

// When what could not be read is tried again.
constexpr std::chrono::seconds kAgainAfter{10};
constexpr std::chrono::seconds kLookEvery{2};
constexpr std::chrono::seconds kSlotWait{60};

}  // namespace

// What was read before the last gap is no start for what lies behind it.
Task<Result<>> JournalCapture::know_snapshots() {
    auto look = [this, journals = journals_]() -> Result<std::set<std::uint32_t>> {
        std::set<std::uint32_t> known;
        for (const storage::JournalRecord& journal : journals) {
            WV_TRY(const auto gaps, services_.repository.journal_gaps(journal.id));
            const std::uint64_t from = gaps.empty() ? 0 : gaps.back().to_lsn();
            WV_TRY(const auto snapshots, services_.repository.last_snapshots(journal.id));
            for (const pb::SnapshotTaken& taken : snapshots)
                if (taken.lsn() >= from) known.insert(taken.table_oid());
        }
        return known;
    };
    WV_CO_TRY(read_tables_, co_await run_on(services_.store, std::move(look)));
    co_return Result<>{};
}

std::vector<std::uint32_t> JournalCapture::tables_to_read() const {
    std::vector<std::uint32_t> tables;
    for (const wal::TableVerdict& verdict : status_.verdicts)
        // A partitioned table has no rows of its own.
        if (verdict.journaled != wal::Journaled::left_out && !verdict.partitioned &&
            !read_tables_.contains(verdict.oid))
            tables.push_back(verdict.oid);
    return tables;
}

Task<> JournalCapture::snapshot_loop(Session& session) {
    if (!server_.journal.snapshots) co_return;
    auto known = co_await know_snapshots();
    std::string told;
    while (!session.over && known) {
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
    if (!known && !session.over)
        log::warn("journal.snapshot_failed", known.error().message, {{"database", database_}});
}

Task<Result<>> JournalCapture::take_snapshots(Session& session) {
    wal::DatabaseOptions options = database_options("walvault journal snapshot");
    WV_CO_TRY(wal::LogicalSession exporting,
              co_await wal::connect_to_database(std::move(options),
                                                wal::Connection::Mode::database_replication));
    wal::LogicalSlotOptions slot;
    slot.slot = journal_slot_name(server_.journal.slot + "_rows", database_);
    slot.temporary = true;
    slot.wait_timeout = kSlotWait;
    WV_CO_TRY(wal::CreatedSlot made,
              co_await wal::create_logical_slot(*exporting.connection, std::move(slot)));
    co_return co_await read_tables(session, std::move(made));
}

Task<Result<>> JournalCapture::read_tables(Session& session, wal::CreatedSlot slot) {
    wal::TableSnapshot::Options options;
    options.database = database_options("walvault journal rows");
    options.snapshot_name = slot.snapshot_name;
    JournalRouter router(router_options(), std::vector<Lsn>(journals_.size()));
    std::unique_ptr<wal::TableSnapshot> rows;
    Result<> later;
    for (const std::uint32_t table : tables_to_read()) {
        if (session.over) break;
        if (!rows) {
            wal::TableSnapshot::Options again = options;
            WV_CO_TRY(rows, co_await wal::TableSnapshot::open(std::move(again)));
        }
        auto read = co_await read_table(session, *rows, router, table, slot.consistent_lsn);
        if (read) continue;
        // Of no more use after an error; the other tables need not wait for this one.
        rows.reset();
        if (read.error().code == Errc::not_found || read.error().code == Errc::refused) {
            read_tables_.insert(table);
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
    WV_CO_TRY(const pgoutput::Relation relation, co_await rows.begin(table_oid));
    status_.snapshot_of = std::string(relation.schema) + "." + std::string(relation.name);
    WV_CO_TRY(const TableFacts facts, co_await facts_of(session.read, relation));
    router.take_relation(relation, facts);
    auto begin = [this, journal = journals_[router.journal_of(table_oid)], table_oid, lsn,
                  at = services_.clock.now()] {
        return services_.repository.begin_snapshot(journal, cluster_, timeline_, table_oid, lsn,
                                                   at);
    };
    WV_CO_TRY(auto made, co_await run_on(services_.store, std::move(begin)));
    auto writer = std::make_shared<std::unique_ptr<storage::SnapshotWriter>>(std::move(made));
    WV_CO_CHECK(co_await keep_rows(session, rows, router, table_oid, writer));
    const std::uint64_t count = (*writer)->row_count();
    auto take = [this, writer] { return services_.repository.take_snapshot(std::move(*writer)); };
    WV_CO_CHECK(co_await run_on(services_.store, std::move(take)));
    read_tables_.insert(table_oid);
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
