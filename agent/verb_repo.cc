// walvault repo: rebuild-index, stat, ls, add.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/version.h"
#include "storage/offloader.h"
#include "storage/repository.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using nlohmann::json;

int rebuild_index(const Globals& globals, const Config& config) {
    auto master = read_master_key(config);
    if (!master) return report(globals, master.error());
    if (globals.dry_run && globals.output != Output::text) {
        print_answer(globals, json{{"dry_run", true}, {"repository", config.repo.root}});
        return kExitDone;
    }
    if (globals.dry_run) {
        std::printf("Would rebuild the index of %s from its ledger and packs.\n",
                    config.repo.root.c_str());
        return kExitDone;
    }
    storage::RepositoryOptions options;
    options.version = kVersion;
    options.host = "rebuild-index";
    options.wal_level = config.repo.wal_level;
    options.rebuild_index = true;
    SteadyTime started = system_clock().steady_now();
    auto repository = storage::Repository::open(posix_file_system(), config.repo.root, *master,
                                                system_clock(), options);
    if (!repository) return report(globals, repository.error());
    if (auto synced = (*repository)->sync(); !synced) return report(globals, synced.error());
    auto took = std::chrono::duration_cast<Micros>(system_clock().steady_now() - started);
    if (globals.output != Output::text)
        print_answer(globals, json{{"repository", config.repo.root},
                                   {"rebuilt", true},
                                   {"duration_ms", took.count() / 1000}});
    else if (!globals.quiet)
        std::printf("The index of %s was rebuilt from its ledger and packs in %s.\n",
                    config.repo.root.c_str(), format_duration(took).c_str());
    return kExitDone;
}

int stat(const Globals& globals) {
    auto opened = open_view(globals);
    if (!opened) return report(globals, opened.error());
    auto totals = opened->view->totals(opened->cluster.name);
    if (!totals) return report(globals, totals.error());
    if (globals.output != Output::text) {
        json body{{"server", opened->cluster.name},
                  {"wal_bytes", totals->wal_plain_bytes},
                  {"wal_stored_bytes", totals->wal_stored_bytes},
                  {"base_bytes", totals->base_plain_bytes},
                  {"base_stored_bytes", totals->base_stored_bytes},
                  {"chunk_count", totals->chunk_count},
                  {"pack_count", totals->pack_count}};
        print_answer(globals, body);
        return kExitDone;
    }
    std::printf(
        "WAL           %s stored for %s\nbase backups  %s stored for %s in %s chunks\npacks        "
        " %s\n",
        format_size(totals->wal_stored_bytes).c_str(), format_size(totals->wal_plain_bytes).c_str(),
        format_size(totals->base_stored_bytes).c_str(),
        format_size(totals->base_plain_bytes).c_str(), format_count(totals->chunk_count).c_str(),
        format_count(totals->pack_count).c_str());
    return kExitDone;
}

int ls(const Globals& globals) {
    auto opened = open_view(globals);
    if (!opened) return report(globals, opened.error());
    auto packs = opened->view->packs(opened->cluster.name);
    if (!packs) return report(globals, packs.error());
    json rows = json::array();
    Table table({"PATH", "STORED", "PLAIN", "WAL FROM", "TO"});
    for (const pb::PackInfo& pack : *packs) {
        bool wal = pack.kind() == pb::PACK_KIND_WAL;
        std::string from = wal ? to_string(Lsn{pack.start_lsn()}) : "";
        std::string to = wal ? to_string(Lsn{pack.end_lsn()}) : "";
        table.add_row({printable(pack.path()), format_size(pack.stored_bytes()),
                       format_size(pack.plain_bytes()), from, to});
        rows.push_back({{"path", pack.path()},
                        {"stored_bytes", pack.stored_bytes()},
                        {"bytes", pack.plain_bytes()},
                        {"start_lsn", from},
                        {"end_lsn", to}});
    }
    if (globals.output == Output::text)
        std::fputs(table.text().c_str(), stdout);
    else
        print_answer(globals, json{{"packs", rows}});
    return kExitDone;
}

// Header and keyring into an empty directory or bucket; the agent brings the rest.
Result<const TierConfig*> add_tier(const Globals& globals, const Config& config,
                                   const std::string& name) {
    WV_TRY(const TierConfig* tier, config.tier(name));
    WV_TRY(storage::MasterKey master, read_master_key(config));
    auto repository = storage::make_directory_store(posix_file_system(), config.repo.root);
    WV_TRY(auto objects, storage::open_tier_objects(posix_file_system(), tier->place()));
    auto is_one = storage::is_tier(*repository, *objects, master);
    Result<> made = is_one ? Result<>() : fail(is_one.error());
    if (made && !globals.dry_run) made = storage::initialize_tier(*repository, *objects, master);
    if (made) return tier;
    Error error = as_repository_error(made.error());
    const bool is_away = made.error().code == Errc::unavailable || made.error().code == Errc::io;
    if (is_away && !tier->is_bucket)
        error.hint = "mount its disk, or make the directory for the user the agent runs as";
    return fail(std::move(error));
}

int add(const Globals& globals, const Config& config, const std::string& name) {
    auto tier = add_tier(globals, config, name);
    if (!tier) return report(globals, tier.error());
    if (globals.output != Output::text)
        print_answer(
            globals,
            json{{"repo", (*tier)->name}, {"url", (*tier)->url}, {"dry_run", globals.dry_run}});
    else if (!globals.quiet)
        std::printf(globals.dry_run
                        ? "Would make %s a copy of this repository.\n"
                        : "%s is a copy of this repository now. An agent that runs with it in its "
                          "configuration brings what is stored.\n",
                    printable((*tier)->url).c_str());
    return kExitDone;
}

}  // namespace

int verb_repo(const Globals& globals, const RepoArguments& arguments) {
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    if (arguments.action == "rebuild-index") return rebuild_index(globals, *config);
    if (arguments.action == "stat") return stat(globals);
    if (arguments.action == "ls") return ls(globals);
    if (arguments.action == "add") return add(globals, *config, arguments.name);
    return report(globals,
                  Error{Errc::invalid_argument, "repo has no action \"" + arguments.action + "\"",
                        "rebuild-index, stat, ls or add"},
                  kExitUsage);
}

}  // namespace walvault::agent
