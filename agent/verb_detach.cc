// walvault detach: lets go of the server: drops the slot, says what remains.
#include <cstdio>

#include "agent/control.h"
#include "agent/open_view.h"
#include "agent/server_call.h"
#include "storage/repository.h"
#include "wal/walsender.h"

namespace walvault::agent {
namespace {

Result<> drop_and_record(const Config& config, const ServerConfig& server, bool keep_slot) {
    // The lock shows that no agent streams, and keeps one from starting meanwhile.
    WV_TRY(storage::MasterKey master, read_master_key(config));
    if (keep_slot) return {};
    WV_CHECK(call_server(server, wal::Connection::Mode::physical_replication,
                         [&](wal::Connection& connection) -> Task<Result<>> {
                             auto dropped = co_await wal::drop_slot(connection, server.slot);
                             if (!dropped && dropped.error().code == Errc::not_found)
                                 co_return Result<>();
                             co_return dropped;
                         }));
    pb::LedgerEntry entry;
    entry.set_actor("detach");
    entry.mutable_slot_dropped()->set_cluster(server.name);
    entry.mutable_slot_dropped()->set_slot(server.slot);
    auto entered = storage::append_to_ledger(posix_file_system(), config.repo.root, master,
                                             system_clock(), std::move(entry));
    if (!entered) return fail(as_repository_error(std::move(entered).error()));
    return {};
}

}  // namespace

int verb_detach(const Globals& globals, const DetachArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    auto server = config->server(globals.server);
    if (!server) return report(globals, server.error(), kExitUsage);
    if (call_agent(config->web.socket, "GET", "/livez"))
        return report(
            globals,
            Error{Errc::busy, "the agent is running and would make the slot again",
                  "stop it first (systemctl stop walvault@" + (*server)->name + "), then repeat"});
    if (globals.dry_run) {
        std::printf("Would drop the replication slot \"%s\".\n", (*server)->slot.c_str());
        return kExitDone;
    }
    auto done = drop_and_record(*config, **server, arguments.keep_slot);
    if (!done)
        return report(globals, done.error());
    if (!globals.quiet)
        std::printf("%s\nThe repository %s is as it was: everything in it stays restorable.\n",
                    arguments.keep_slot
                        ? "The slot was kept: it holds WAL on the server until somebody drops it."
                        : ("The replication slot \"" + (*server)->slot + "\" is gone.").c_str(),
                    config->repo.root.c_str());
    return kExitDone;
}

}  // namespace walvault::agent
