// walvault check: whether the server is as the configuration needs it, and what would mend it.
// Changes nothing.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/journal_capture.h"
#include "agent/render.h"
#include "agent/server_call.h"
#include "wal/server_facts.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

enum class Finding { good, warning, bad };

struct Item {
    Finding finding = Finding::good;
    std::string about;  // "server", "journal of app", "table public.orders"
    std::string what;
    std::string mend;  // a statement or a setting; empty: none is needed, or there is none
};

Item item_of(std::string about, const Error& error) {
    return {Finding::bad, std::move(about), error.message, error.hint};
}

void look_at_server(const ServerConfig& server, std::vector<Item>& items) {
    wal::Connection::Options options;
    options.conninfo = server.conninfo;
    options.mode = wal::Connection::Mode::physical_replication;
    auto called = call_server(options, [&](wal::Connection& replication) -> Task<Result<>> {
        WV_CO_CHECK(wal::server_version_of(replication));
        WV_CO_TRY(const wal::SystemIdentity system, co_await wal::identify_system(replication));
        items.push_back(
            {Finding::good, "server",
             fmt::format("reached by replication: PostgreSQL {}, system {}, timeline {}",
                         replication.server_version_num() / 10000, system.system_identifier,
                         system.timeline),
             ""});
        co_return Result<>{};
    });
    if (!called) items.push_back(item_of("server", called.error()));
    wal::SlotFacts slot;
    options.mode = wal::Connection::Mode::sql;
    called = call_server(options, [&](wal::Connection& sql) -> Task<Result<>> {
        WV_CO_TRY(slot, co_await wal::slot_facts(sql, server.slot));
        co_return Result<>{};
    });
    if (!called) return items.push_back(item_of("slot", called.error()));
    if (!slot.exists)
        items.push_back({Finding::good, "slot", fmt::format("{} will be made", server.slot), ""});
    else
        items.push_back({slot.wal_status == "lost" ? Finding::bad : Finding::good, "slot",
                         fmt::format("{} is {}, retains {}", server.slot, slot.wal_status,
                                     format_size(slot.retained_bytes)),
                         ""});
}

Item item_of(const wal::TableVerdict& verdict) {
    Item item;
    item.about = "table " + verdict.table;
    item.finding =
        verdict.journaled == wal::Journaled::all_changes ? Finding::good : Finding::warning;
    item.what = verdict.journaled == wal::Journaled::all_changes ? "all changes are journaled"
                : verdict.journaled == wal::Journaled::inserts_only
                    ? "only inserts and truncations are journaled: " + verdict.reason
                    : "is left out: " + verdict.reason;
    item.mend = verdict.mend;
    return item;
}

// `unknown`: paths of columns that are to be masked and were in no database looked at before. False
// where this one could not be looked at.
bool look_at_database(const ServerConfig& server, const std::string& database,
                      std::vector<Item>& items, std::vector<std::string>& unknown) {
    const std::string about = "journal of " + database;
    wal::DatabaseOptions options;
    options.conninfo = server.conninfo;
    options.database = database;
    options.application_name = "walvault check";
    auto called = call_database(options, [&](wal::Connection& sql) -> Task<Result<>> {
        WV_CO_TRY(const wal::DatabaseFacts facts, co_await wal::database_facts(sql));
        WV_CO_CHECK(wal::check_journal_possible(facts));
        const std::string slot = journal_slot_name(server.journal.slot, database);
        const wal::LogicalSlot* found = facts.slot(slot);
        if (found == nullptr)
            items.push_back({Finding::good, about, fmt::format("slot {} will be made", slot), ""});
        else
            items.push_back({found->lost() ? Finding::bad : Finding::good, about,
                             fmt::format("slot {} is {}, retains {}", slot, found->wal_status,
                                         format_size(found->retained_bytes)),
                             ""});
        WV_CO_TRY(const wal::TablePatterns patterns,
                  wal::TablePatterns::parse(server.journal.tables));
        std::string name = server.journal.slot;
        WV_CO_TRY(const wal::PublicationRequest request,
                  co_await wal::publication_request(sql, std::move(name)));
        WV_CO_TRY(const wal::PublicationPlan plan, wal::plan_publication(request, patterns));
        for (const wal::TableVerdict& verdict : plan.verdicts)
            items.push_back(item_of(verdict));
        std::vector<std::string> paths = unknown;
        WV_CO_TRY(unknown, co_await wal::unknown_columns(sql, std::move(paths)));
        co_return Result<>{};
    });
    if (!called) items.push_back(item_of(about, called.error()));
    return called.has_value();
}

std::string text_of(const Item& item, const Style& style) {
    std::string text = item.finding == Finding::good      ? style.good("ok")
                       : item.finding == Finding::warning ? style.warning("note")
                                                          : style.bad("wrong");
    text += "   " + printable(item.about) + ": " + printable(item.what) + "\n";
    if (!item.mend.empty() && item.finding != Finding::good)
        text += "        " + printable(item.mend) + "\n";
    return text;
}

SortedJson json_of(const Item& item) {
    return {{"finding", item.finding == Finding::good      ? "ok"
                        : item.finding == Finding::warning ? "note"
                                                           : "wrong"},
            {"about", item.about},
            {"what", item.what},
            {"mend", item.mend}};
}

}  // namespace

int verb_check(const Globals& globals, const CheckArguments&) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    std::vector<Item> items;
    look_at_server(**server, items);
    const JournalConfig& journal = (*server)->journal;
    std::vector<std::string> unknown = journal.masked_columns;
    unknown.insert(unknown.end(), journal.dropped_columns.begin(), journal.dropped_columns.end());
    bool is_all = !journal.databases.empty();
    for (const std::string& database : journal.databases)
        is_all = look_at_database(**server, database, items, unknown) && is_all;
    // What was meant is journaled in the clear.
    if (is_all)
        for (const std::string& path : unknown)
            items.push_back({Finding::bad, "mask of " + path,
                             "no column is called so in the databases that are journaled",
                             "correct mask in [server.NAME.journal]"});
    bool bad = false;
    std::string text;
    SortedJson list = SortedJson::array();
    const Style style = Style::of(globals, fileno(stdout));
    for (const Item& item : items) {
        bad = bad || item.finding == Finding::bad;
        text += text_of(item, style);
        list.push_back(json_of(item));
    }
    if (globals.output == Output::text)
        std::fputs(text.c_str(), stdout);
    else
        print_answer(globals, SortedJson{{"server", (*server)->name}, {"checks", list}});
    return bad ? kExitPostgres : kExitDone;
}

}  // namespace walvault::agent
