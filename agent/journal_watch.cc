// What changes beside the stream of a row journal: tables that come, go, and lose their identity,
// and what the slot holds back.
#include "agent/journal_session.h"
#include "agent/render.h"
#include "base/log.h"
#include "wal/server_facts.h"

namespace walvault::agent {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kWatchEvery{5};

}  // namespace

void JournalCapture::publish_slot() {
    if (!status_.slot_facts) return;
    metrics_.slot_retained_bytes.set(static_cast<double>(status_.slot_facts->retained_bytes));
    metrics_.slot_catalog_xmin_age.set(static_cast<double>(status_.slot_facts->catalog_xmin_age));
}

Task<Result<>> JournalCapture::watch_once(Session& session) {
    wal::DatabaseOptions options = database_options("walvault journal watch");
    WV_CO_TRY(wal::LogicalSession sql,
              co_await wal::connect_to_database(std::move(options), wal::Connection::Mode::sql));
    WV_CO_CHECK(co_await look_for_publications(*sql.connection));
    // A new slot comes first, or what is missing would not be told.
    if (!slot_unusable_.empty()) co_return Result<>{};
    WV_CO_CHECK(co_await look_at_catalogue(*sql.connection));
    WV_CO_TRY(const wal::DatabaseFacts facts, co_await wal::database_facts(*sql.connection));
    const wal::LogicalSlot* slot = facts.slot(status_.slot);
    status_.slot_facts = slot != nullptr ? std::optional(*slot) : std::nullopt;
    publish_slot();
    co_return co_await let_others_pass(session, *sql.connection, facts);
}

// The server's disk comes before the journal, where the configuration says so.
bool JournalCapture::is_to_be_given_up() const {
    return server_.journal.slot_give_up_bytes && status_.slot_facts &&
           status_.slot_facts->retained_bytes > *server_.journal.slot_give_up_bytes;
}

Task<> JournalCapture::watch_loop(Session& session) {
    while (!session.over) {
        auto seen = co_await watch_once(session);
        if (!seen && !session.over && seen.error().message != watch_error_)
            log::warn("journal.watch_failed", seen.error().message,
                      {{"database", database_}, {"hint", seen.error().hint}});
        watch_error_ = seen ? "" : seen.error().message;
        if (seen && !slot_unusable_.empty()) {
            session.receiver->close();
            co_return;
        }
        if (seen && is_to_be_given_up()) {
            slot_unusable_ = "the journal's slot was given up: it held back " +
                             format_size(status_.slot_facts->retained_bytes);
            log::error("journal.slot_given_up", slot_unusable_, {{"database", database_}});
            session.receiver->close();
            co_return;
        }
        const SteadyTime next = services_.clock.steady_now() + kWatchEvery;
        while (!session.over && services_.clock.steady_now() < next)
            co_await wait_for(session.changed, next - services_.clock.steady_now());
    }
}

}  // namespace walvault::agent
