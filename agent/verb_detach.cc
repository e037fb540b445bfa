// walvault detach: lets go of the server: drops the slots and publications, says what remains.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "agent/control.h"
#include "agent/journal_capture.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/server_call.h"
#include "storage/repository.h"
#include "storage/repository_files.h"
#include "wal/conninfo.h"
#include "wal/logical_setup.h"
#include "wal/server_facts.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

class Detach {
public:
    Detach(const Globals& globals, const DetachArguments& arguments, const Config& config,
           const ServerConfig& server)
        : globals_(globals), arguments_(arguments), config_(config), server_(server) {}

    Result<ExitCode> run() {
        if (call_agent(config_.web.socket, "GET", "/livez"))
            return fail(
                Errc::busy, "the agent is running and would make the slot again",
                "stop it first (systemctl stop walvault@" + server_.name + "), then repeat");
        if (globals_.dry_run) return tell_plan();
        WV_CHECK(ask());
        WV_TRY(const storage::MasterKey master, read_master_key(config_));
        if (!arguments_.keep_slot) WV_CHECK(let_go(master));
        return tell_done();
    }

private:
    using Errors = std::vector<std::pair<std::string, Error>>;  // by name
    struct Left {
        Errors databases;
        Errors hosts;
    };

    // What detach drops of the row journal, by database.
    struct JournalPlace {
        std::string database;
        std::string slot;
        std::vector<std::string> publications;
    };
    std::vector<JournalPlace> journal_places() const {
        std::vector<JournalPlace> places;
        const std::string& prefix = server_.journal.slot;
        for (const std::string& database : server_.journal.databases)
            places.push_back({database,
                              journal_slot_name(prefix, database),
                              {prefix, wal::inserts_publication(prefix)}});
        return places;
    }
    // "the replication slot "a" of main; of database shop the slot "b" and the publications …".
    std::string what_text() const {
        std::string text = "the replication slot \"" + server_.slot + "\" of " + server_.name;
        for (const JournalPlace& place : journal_places())
            text += "; of database " + printable(place.database) + " the slot \"" + place.slot +
                    "\" and the publications \"" + place.publications[0] + "\" and \"" +
                    place.publications[1] + "\"";
        return text;
    }
    nlohmann::json journals_json() const {
        nlohmann::json list = nlohmann::json::array();
        for (const JournalPlace& place : journal_places())
            list.push_back({{"database", place.database},
                            {"slot", place.slot},
                            {"publications", place.publications}});
        return list;
    }

    // Without the slot the server forgets where walvault was: off a terminal that takes a --yes.
    Result<> ask() const {
        if (globals_.yes || arguments_.keep_slot) return {};
        const std::string what = what_text();
        if (::isatty(STDIN_FILENO) == 0)
            return fail(Errc::refused, "detach drops " + what + ", and nobody is there to be asked",
                        "say --yes, or --keep-slot; --dry-run tells what would be done");
        std::fprintf(stderr, "Drop %s? WAL from now on will not be received. [y/N] ", what.c_str());
        char answer[16] = "";
        if (std::fgets(answer, sizeof answer, stdin) != nullptr &&
            (answer[0] == 'y' || answer[0] == 'Y'))
            return {};
        return fail(Errc::refused, "the answer was no; nothing was changed");
    }

    // Everything is tried, whatever fails; what may still be there is told at the end. The slot is
    // dropped on every server of the conninfo: each may have been streamed from, or have a slot
    // kept ready.
    Result<> let_go(const storage::MasterKey& master) {
        wal::Connection::Options options;
        options.conninfo = server_.conninfo;
        options.mode = wal::Connection::Mode::physical_replication;
        WV_TRY(const wal::ConnectSettings settings, wal::connect_settings(options));
        const std::vector<wal::ServerAddress> servers = wal::servers_of(settings);
        WV_TRY(const Left left, drop_all(servers, options));
        if (left.hosts.size() < servers.size()) WV_CHECK(record(master));
        if (left.databases.empty() && left.hosts.empty()) return {};
        if (left.databases.empty() && servers.size() == 1) return fail(left.hosts.front().second);
        return fail(still_there(left, servers.size()));
    }

    Result<Left> drop_all(const std::vector<wal::ServerAddress>& servers,
                          const wal::Connection::Options& options) const {
        // Shows that no agent streams, and keeps one from starting meanwhile.
        auto lock = posix_file_system().lock(config_.repo.root + "/" + storage::kLockName);
        if (!lock) return fail(as_repository_error(std::move(lock).error()));
        return Left{leave_databases(), drop_on(servers, options)};
    }

    wal::DatabaseOptions database_options(const std::string& database) const {
        wal::DatabaseOptions options;
        options.conninfo = server_.conninfo;
        options.database = database;
        options.application_name = "walvault detach";
        return options;
    }

    // Nothing where they cannot be asked for: then each is tried.
    std::optional<std::set<std::string>> databases_there() const {
        std::set<std::string> names;
        auto asked =
            call_database(database_options(""), [&](wal::Connection& sql) -> Task<Result<>> {
                WV_CO_TRY(auto result,
                          co_await sql.query_one("SELECT datname FROM pg_catalog.pg_database"));
                for (const auto& row : result.rows)
                    if (!row.empty() && row[0]) names.insert(*row[0]);
                co_return Result<>();
            });
        if (!asked) return std::nullopt;
        return names;
    }

    // Slots and publications of the row journals. A publication that is left makes UPDATE and
    // DELETE of its tables fail when somebody drops their primary key.
    Errors leave_databases() const {
        Errors left;
        const std::vector<JournalPlace> places = journal_places();
        if (places.empty()) return left;
        const auto there = databases_there();
        for (const JournalPlace& place : places) {
            // One that was dropped took them along.
            if (there && there->count(place.database) == 0) continue;
            auto gone = call_database(
                database_options(place.database), [&](wal::Connection& sql) -> Task<Result<>> {
                    std::string slot = place.slot;
                    auto dropped = co_await wal::drop_slot_by_sql(sql, std::move(slot));
                    std::string publication = server_.journal.slot;
                    WV_CO_CHECK(co_await wal::drop_publication(sql, std::move(publication)));
                    co_return dropped;
                });
            if (!gone) left.emplace_back(place.database, std::move(gone).error());
        }
        return left;
    }

    // The servers where it may still be.
    Errors drop_on(const std::vector<wal::ServerAddress>& servers,
                   wal::Connection::Options options) const {
        Errors left;
        for (const wal::ServerAddress& server : servers) {
            if (servers.size() > 1) options.only = server;
            if (auto dropped = drop_slot(options); !dropped)
                left.emplace_back(wal::to_string(server), std::move(dropped).error());
        }
        return left;
    }

    Result<> drop_slot(const wal::Connection::Options& options) const {
        return call_server(options, [&](wal::Connection& connection) -> Task<Result<>> {
            auto done = co_await wal::drop_slot(connection, server_.slot);
            if (!done && done.error().code == Errc::not_found) co_return Result<>();
            co_return done;
        });
    }

    Error still_there(const Left& left, std::size_t count) const {
        std::string message;
        if (!left.databases.empty()) {
            message = "the row journal may still have its slot or publications in ";
            for (const auto& [database, error] : left.databases)
                message += (&error == &left.databases.front().second ? "" : "; ") +
                           ("database " + printable(database)) + ": " + error.message;
        }
        std::string hosts, reasons;
        for (const auto& [host, error] : left.hosts) {
            hosts += (hosts.empty() ? "" : ", ") + host;
            reasons += (reasons.empty() ? "" : "; ") + error.message;
        }
        if (!hosts.empty())
            message += (message.empty() ? "the slot \"" : "; and the slot \"") + server_.slot +
                       "\" may still be on " + hosts + " (of " + std::to_string(count) +
                       (count == 1 ? " server): " : " servers): ") + reasons;
        return {Errc::unavailable, message,
                "a slot that is left holds WAL there for ever: repeat detach when they answer",
                Origin::server};
    }

    Result<> record(const storage::MasterKey& master) const {
        pb::LedgerEntry entry;
        entry.set_actor("detach");
        entry.mutable_slot_dropped()->set_cluster(server_.name);
        entry.mutable_slot_dropped()->set_slot(server_.slot);
        auto entered = storage::append_to_ledger(posix_file_system(), config_.repo.root, master,
                                                 system_clock(), std::move(entry));
        if (!entered) return fail(as_repository_error(std::move(entered).error()));
        return {};
    }

    Result<ExitCode> tell_plan() const {
        if (globals_.output != Output::text)
            print_answer(globals_, nlohmann::json{{"dry_run", true},
                                                  {"server", server_.name},
                                                  {"slot", server_.slot},
                                                  {"journals", journals_json()},
                                                  {"would_drop", !arguments_.keep_slot}});
        else
            std::printf("Would %s %s.\n", arguments_.keep_slot ? "keep" : "drop",
                        what_text().c_str());
        return kExitDone;
    }

    Result<ExitCode> tell_done() const {
        if (globals_.output != Output::text)
            print_answer(globals_, nlohmann::json{{"server", server_.name},
                                                  {"slot", server_.slot},
                                                  {"journals", journals_json()},
                                                  {"dropped", !arguments_.keep_slot},
                                                  {"repository", config_.repo.root}});
        else if (!globals_.quiet)
            std::printf("%s\nThe repository %s is as it was: everything in it stays restorable.\n",
                        done_text().c_str(), config_.repo.root.c_str());
        return kExitDone;
    }

    std::string done_text() const {
        const bool journals = server_.journal.enabled();
        if (arguments_.keep_slot)
            return std::string(journals ? "The slots were kept: they hold"
                                        : "The slot was kept: it holds") +
                   " WAL on the server until somebody drops " + (journals ? "them" : "it") +
                   (journals ? ". The row journal's publications were kept too." : ".");
        std::string text = "The replication slot \"" + server_.slot + "\" is gone.";
        for (const JournalPlace& place : journal_places())
            text += "\nOf database " + printable(place.database) + " the slot \"" + place.slot +
                    "\" and the publications \"" + place.publications[0] + "\" and \"" +
                    place.publications[1] + "\" are gone.";
        return text;
    }

    const Globals& globals_;
    const DetachArguments& arguments_;
    const Config& config_;
    const ServerConfig& server_;
};

}  // namespace

int verb_detach(const Globals& globals, const DetachArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    Detach detach(globals, arguments, *config, **server);
    auto done = detach.run();
    if (!done) return report(globals, done.error());
    return *done;
}

}  // namespace walvault::agent
