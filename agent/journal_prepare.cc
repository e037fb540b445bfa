// How a session of the row journal begins: what the server says of itself and of the
// slot, and where the journal goes on.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "agent/journal_session.h"
#include "agent/render.h"
#include "base/log.h"
#include "storage/repository_files.h"
#include "wal/server_facts.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kSlotWait{60};
constexpr std::chrono::milliseconds kLookForCluster{200};
constexpr int kGuardTurns = 50;  // of these, between two looks at the slot

JournalSlotSide side_of(const wal::LogicalSlot* slot) {
    JournalSlotSide side;
    if (slot == nullptr) return side;
    side.exists = true;
    if (slot->lost()) side.unusable = "the server has invalidated the journal's slot";
    if (slot->confirmed_flush_lsn) side.confirmed_flush_lsn = *slot->confirmed_flush_lsn;
    return side;
}

}  // namespace

JournalCapture::Session::Session(JournalCapture& capture)
    : staging(capture.disk_, posix_file_system(), capture.services_.repository.root(),
              capture.server_.journal.staging_bytes),
      tasks(capture.services_.executor),
      changed(capture.services_.executor) {}

Task<Result<>> JournalCapture::begin_session(Session& session) {
    WV_CO_CHECK(co_await know_ground());
    WV_CO_CHECK(co_await prepare());
    wal::LogicalReceiver::Options options;
    options.database = database_options("walvault journal");
    options.slot = status_.slot;
    options.publications = {server_.journal.slot, wal::inserts_publication(server_.journal.slot)};
    options.streaming = streams_;
    WV_CO_TRY(session.receiver,
              co_await wal::LogicalReceiver::attach(std::move(options), services_.clock));
    timeline_ = session.receiver->identity().system.timeline;
    if (timeline_ != ground_.timeline ||
        session.receiver->identity().system.system_identifier != ground_.cluster.system_identifier)
        co_return fail(Errc::unavailable, "the slot's server is another one than the WAL stream's",
                       "the journal goes on when both are on the same");
    if (!pipeline_.is_running()) {
        std::vector<storage::JournalRecord> journals = journals_;
        for (storage::JournalRecord& journal : journals)
            journal.wal_history = ground_.wal_history;
        WV_CO_CHECK(co_await pipeline_.begin(std::move(journals), ground_.cluster, timeline_));
        tails_of_ = ground_.wal_history;
    }
    JournalRouter::Options router = router_options();
    session.router.emplace(std::move(router), pipeline_.ends());
    session.began_lsn = session.taken_lsn = session.flushing_lsn = pipeline_.stored_lsn();
    session.last_quiet_at = services_.clock.steady_now();
    status_.stored_lsn = pipeline_.stored_lsn();
    auto started = co_await session.receiver->start(pipeline_.stored_lsn());
    if (!started) note_trouble(session, started.error());
    co_return started;
}

// The physical stream says which cluster it is, and which history the server goes on with.
Task<Result<>> JournalCapture::know_ground() {
    for (int turn = 1;; ++turn) {
        if (stopping_) co_return fail(Errc::cancelled, "the agent is ending");
        if (const auto ground = services_.ground()) {
            ground_ = *ground;
            co_return Result<>{};
        }
        co_await wait_for(stopped_, kLookForCluster);
        if (turn % kGuardTurns != 0) continue;
        if (auto guarded = co_await guard_slot(); !guarded)
            log::debug("journal.slot_unguarded", guarded.error().message);
    }
}

// With several hosts this connection may lead to another one than the stream's, and after a
// failover the stream may not be there yet.
Task<Result<>> JournalCapture::require_same_server(wal::Connection& sql) {
    WV_CO_TRY(
        const wal::QueryResult answer,
        co_await sql.query_one(
            "SELECT substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)"));
    const std::string expected = fmt::format("{:08X}", ground_.timeline);
    if (answer.rows.size() == 1 && answer.rows[0][0] == expected) co_return Result<>{};
    co_return fail(Errc::unavailable,
                   "the server is on another timeline than the WAL stream, " +
                       std::to_string(ground_.timeline),
                   "the journal goes on when the stream has followed");
}

// What the tails hold belongs to the history in which they were opened.
Task<Result<>> JournalCapture::leave_another_history() {
    if (!pipeline_.is_running() || tails_of_ == ground_.wal_history) co_return Result<>{};
    co_return co_await pipeline_.finish();
}

Task<Result<>> JournalCapture::prepare() {
    wal::DatabaseOptions options = database_options("walvault journal set-up");
    WV_CO_TRY(wal::LogicalSession sql,
              co_await wal::connect_to_database(std::move(options), wal::Connection::Mode::sql));
    WV_CO_TRY(const wal::DatabaseFacts facts, co_await wal::database_facts(*sql.connection));
    WV_CO_CHECK(wal::check_journal_possible(facts));
    WV_CO_CHECK(co_await require_same_server(*sql.connection));
    WV_CO_CHECK(co_await leave_another_history());
    WV_CO_CHECK(co_await know_journals());
    WV_CO_CHECK(co_await require_known_ends());
    WV_CO_CHECK(co_await know_snapshots());
    WV_CO_CHECK(co_await look_at_slot(*sql.connection, facts));
    WV_CO_CHECK(co_await look_at_catalogue(*sql.connection));
    std::optional<Lsn> end;
    if (!journals_.empty()) end = journals_.front().end_lsn;
    if (pipeline_.is_running()) end = pipeline_.stored_lsn();
    const bool dropped = !slot_unusable_.empty();
    const JournalSlotSide side = side_of(dropped ? nullptr : facts.slot(status_.slot));
    std::optional<Lsn> left;
    if (!journals_.empty() && journals_.front().wal_history) {
        auto look = [this] { return services_.repository.histories(ground_.cluster.name); };
        WV_CO_TRY(const auto histories, co_await run_on(services_.store, std::move(look)));
        // Nothing is taken back on the word of a history that is not there.
        if (std::ranges::find(histories, ground_.wal_history, &storage::HistoryRecord::id) ==
            histories.end())
            co_return fail(Errc::unavailable, "the WAL stream's history is not known yet");
        left = left_at(histories, ground_.wal_history, *journals_.front().wal_history);
    }
    JournalAttachment attachment = choose_journal_attachment(end, left, side);
    if (auto* make = std::get_if<MakeJournalSlot>(&attachment); make != nullptr && dropped)
        make->cause = slot_unusable_;
    WV_CO_CHECK(co_await settle(*sql.connection, std::move(attachment)));
    slot_unusable_.clear();
    // A gap may have been entered: what was read before it is no start.
    co_return co_await know_snapshots();
}

// Where a tail could not be read back it is not known where the journal ends: the slot's position
// would look like a gap then.
Task<Result<>> JournalCapture::require_known_ends() {
    const auto damaged = [this] {
        return std::find_if(journals_.begin(), journals_.end(),
                            [](const auto& each) { return each.damage.has_value(); });
    };
    if (pipeline_.is_running() || damaged() == journals_.end()) co_return Result<>{};
    auto recover = [this] { return services_.repository.recover_tails(); };
    WV_CO_CHECK(co_await run_on(services_.store, std::move(recover)));
    WV_CO_CHECK(co_await know_journals());
    const auto still = damaged();
    if (still == journals_.end()) co_return Result<>{};
    co_return fail(Errc::unavailable, still->damage->message, still->damage->hint);
}

// A slot that gives nothing any more, or holds back too much, goes before anything else is done: so
// that no crash forgets why.
Task<Result<>> JournalCapture::look_at_slot(wal::Connection& sql, wal::DatabaseFacts facts) {
    const wal::LogicalSlot* slot = facts.slot(status_.slot);
    if (slot != nullptr && slot->active)
        co_return fail(Errc::busy, "the slot \"" + status_.slot + "\" is in use by another session",
                       "another agent, or the server has not noticed yet that ours is gone");
    if (!journals_.empty()) WV_CO_CHECK(co_await look_for_publications(sql));
    if (slot == nullptr) co_return Result<>{};
    status_.slot_facts = *slot;
    publish_slot();
    if (is_to_be_given_up())
        slot_unusable_ =
            "the journal's slot was given up: it held back " + format_size(slot->retained_bytes);
    if (slot_unusable_.empty()) co_return Result<>{};
    std::string name = status_.slot;
    co_return co_await wal::drop_slot_by_sql(sql, std::move(name));
}

// While the stream is away, or nothing can be stored: the server's disk is looked after.
Task<Result<>> JournalCapture::guard_slot() {
    if (!server_.journal.slot_give_up_bytes) co_return Result<>{};
    wal::DatabaseOptions options = database_options("walvault journal guard");
    WV_CO_TRY(wal::LogicalSession sql,
              co_await wal::connect_to_database(std::move(options), wal::Connection::Mode::sql));
    WV_CO_TRY(const wal::DatabaseFacts facts, co_await wal::database_facts(*sql.connection));
    const wal::LogicalSlot* slot = facts.slot(status_.slot);
    if (slot == nullptr || slot->active) co_return Result<>{};
    status_.slot_facts = *slot;
    publish_slot();
    if (!is_to_be_given_up()) co_return Result<>{};
    log::error("journal.slot_given_up",
               "the journal's slot was given up: it held back " + format_size(slot->retained_bytes),
               {{"database", database_}});
    std::string name = status_.slot;
    co_return co_await wal::drop_slot_by_sql(*sql.connection, std::move(name));
}

Task<Result<>> JournalCapture::know_journals() {
    auto look = [this] { return services_.repository.journals(ground_.cluster.name); };
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
        journal.set_cluster(ground_.cluster.name);
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

Task<Result<>> JournalCapture::enter_gap(std::optional<Lsn> left_lsn, Lsn start_lsn,
                                         std::string cause) {
    // The tails end before a gap begins.
    WV_CO_CHECK(co_await pipeline_.finish());
    WV_CO_CHECK(co_await know_journals());
    const Lsn end = journals_.front().end_lsn;
    const Lsn from = left_lsn.value_or(end);
    // A slot may begin below what is stored, where somebody dropped one that was ahead.
    const Lsn to_lsn = std::max(start_lsn, from);
    // Where the server is before the gap's end, changes will be missing for longer than until now.
    const bool is_over = left_lsn || to_lsn > end;
    // The main journal's last: where it has one the others do, too.
    const std::vector<storage::JournalRecord> order(journals_.rbegin(), journals_.rend());
    for (const storage::JournalRecord& journal : order) {
        pb::JournalGap gap;
        gap.set_cluster(ground_.cluster.name);
        gap.set_journal_id(storage::text_of(journal.id));
        gap.set_from_lsn(from.value);
        gap.set_to_lsn(to_lsn.value);
        gap.set_cause(cause);
        if (is_over) gap.set_to_at_us(services_.clock.now().time_since_epoch().count());
        gap.set_wal_history_id(storage::text_of(ground_.wal_history));
        if (left_lsn) gap.set_left_end_lsn(end.value);
        auto enter = [this, gap = std::move(gap)] {
            return services_.repository.enter_journal_gap(gap);
        };
        WV_CO_CHECK(co_await run_on(services_.store, std::move(enter)));
    }
    if (left_lsn) whole_look_lsn_.reset();
    metrics_.gaps_total.add();
    log::error(
        "journal.gap", "changes are missing in the row journal: " + cause,
        {{"database", database_}, {"from_lsn", to_string(from)}, {"to_lsn", to_string(to_lsn)}});
    co_return co_await know_journals();
}

Task<Result<>> JournalCapture::settle(wal::Connection& sql, JournalAttachment attachment) {
    Lsn start;
    std::optional<Lsn> left;
    std::string gap;
    if (const auto* go_on = std::get_if<ContinueJournal>(&attachment)) start = go_on->from_lsn;
    if (const auto* adopt = std::get_if<AdoptJournalSlot>(&attachment)) start = adopt->start_lsn;
    if (const auto* behind = std::get_if<JournalBehind>(&attachment)) {
        start = behind->to_lsn;
        gap = behind->cause;
    }
    if (auto* make = std::get_if<MakeJournalSlot>(&attachment)) {
        gap = make->cause;
        left = make->left_lsn;
        WV_CO_TRY(start, co_await make_slot(sql, std::move(*make)));
    }
    if (!gap.empty() && !journals_.empty())
        WV_CO_CHECK(co_await enter_gap(left, start, std::move(gap)));
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

}  // namespace walvault::agent
