// walvault detach: lets go of the server: drops the slot, says what remains.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/control.h"
#include "agent/journal_capture.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/server_call.h"
#include "storage/repository.h"
#include "storage/repository_files.h"
#include "wal/conninfo.h"
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
        if (!arguments_.keep_slot) {
            WV_CHECK(leave_databases());
            WV_CHECK(drop_slots(master));
        }
        return tell_done();
    }

private:
    using HostErrors = std::vector<std::pair<std::string, Error>>;

    // Without the slot the server forgets where walvault was: off a terminal that takes a --yes.
    Result<> ask() const {
        if (globals_.yes || arguments_.keep_slot) return {};
        const std::string what = "the replication slot \"" + server_.slot + "\" of " + server_.name;
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

    // On every server of the conninfo: each may have been streamed from, or have a slot kept ready.
    Result<> drop_slots(const storage::MasterKey& master) {
        wal::Connection::Options options;
        options.conninfo = server_.conninfo;
        options.mode = wal::Connection::Mode::physical_replication;
        WV_TRY(const wal::ConnectSettings settings, wal::connect_settings(options));
        const std::vector<wal::ServerAddress> servers = wal::servers_of(settings);
        WV_TRY(const HostErrors left, drop_on(servers, options));
        if (left.size() < servers.size()) WV_CHECK(record(master));
        if (left.empty()) return {};
        if (servers.size() == 1) return fail(left.front().second);
        return fail(still_there(left, servers.size()));
    }

    // Slots and publications of the row journals. A publication that is left makes UPDATE and
    // DELETE of its tables fail when somebody drops their primary key.
    Result<> leave_databases() const {
        for (const std::string& database : server_.journal.databases) {
            wal::DatabaseOptions options;
            options.conninfo = server_.conninfo;
            options.database = database;
            options.application_name = "walvault detach";
            auto left = call_database(options, [&](wal::Connection& sql) -> Task<Result<>> {
                std::string slot = journal_slot_name(server_.journal.slot, database);
                WV_CO_CHECK(co_await wal::drop_slot_by_sql(sql, std::move(slot)));
                std::string publication = server_.journal.slot;
                co_return co_await wal::drop_publication(sql, std::move(publication));
            });
            if (!left) return left;
        }
        return {};
    }

    // The servers where it may still be.
    Result<HostErrors> drop_on(const std::vector<wal::ServerAddress>& servers,
                               wal::Connection::Options options) const {
        // Shows that no agent streams, and keeps one from starting meanwhile.
        auto lock = posix_file_system().lock(config_.repo.root + "/" + storage::kLockName);
        if (!lock) return fail(as_repository_error(std::move(lock).error()));
        HostErrors left;
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

    Error still_there(const HostErrors& left, std::size_t count) const {
        std::string hosts, reasons;
        for (const auto& [host, error] : left) {
            hosts += (hosts.empty() ? "" : ", ") + host;
            reasons += (reasons.empty() ? "" : "; ") + error.message;
        }
        Error error = left.front().second;
        error.message = "the slot \"" + server_.slot + "\" may still be on " + hosts + " (of " +
                        std::to_string(count) + " servers): " + reasons;
        error.hint = "a slot that is left holds WAL there for ever: repeat detach when they answer";
        return error;
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
                                                  {"would_drop", !arguments_.keep_slot}});
        else
            std::printf(arguments_.keep_slot ? "Would keep the replication slot \"%s\".\n"
                                             : "Would drop the replication slot \"%s\".\n",
                        server_.slot.c_str());
        return kExitDone;
    }

    Result<ExitCode> tell_done() const {
        if (globals_.output != Output::text)
            print_answer(globals_, nlohmann::json{{"server", server_.name},
                                                  {"slot", server_.slot},
                                                  {"dropped", !arguments_.keep_slot},
                                                  {"repository", config_.repo.root}});
        else if (!globals_.quiet)
            std::printf(
                "%s\nThe repository %s is as it was: everything in it stays restorable.\n",
                arguments_.keep_slot
                    ? "The slot was kept: it holds WAL on the server until somebody drops it."
                    : ("The replication slot \"" + server_.slot + "\" is gone.").c_str(),
                config_.repo.root.c_str());
        return kExitDone;
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
