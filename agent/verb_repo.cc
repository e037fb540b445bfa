// walvault repo: rebuild-index, stat, ls, copy, add.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/hold.h"
#include "agent/open_view.h"
#include "agent/render.h"
#include "agent/repo_contents.h"
#include "agent/repo_copy.h"
#include "agent/version.h"
#include "storage/offloader.h"
#include "storage/repository.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

using SortedJson = nlohmann::json;

int rebuild_index(const Globals& globals, const Config& config) {
    auto master = read_master_key(config);
    if (!master) return report(globals, master.error());
    if (globals.dry_run && globals.output != Output::text) {
        print_answer(globals, SortedJson{{"dry_run", true}, {"repository", config.repo.root}});
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
    auto packs = open_layered_store(config);
    if (!packs) return report(globals, packs.error());
    options.packs_store = std::move(*packs);
    SteadyTime started = system_clock().steady_now();
    auto repository = storage::Repository::open(posix_file_system(), config.repo.root, *master,
                                                system_clock(), options);
    if (!repository) return report(globals, repository.error());
    if (auto synced = (*repository)->sync(); !synced) return report(globals, synced.error());
    auto took = std::chrono::duration_cast<Micros>(system_clock().steady_now() - started);
    if (globals.output != Output::text)
        print_answer(globals, SortedJson{{"repository", config.repo.root},
                                         {"rebuilt", true},
                                         {"duration_ms", took.count() / 1000}});
    else if (!globals.quiet)
        std::printf("The index of %s was rebuilt from its ledger and packs in %s.\n",
                    config.repo.root.c_str(), format_duration(took).c_str());
    return kExitDone;
}

// What the store lists, beside a view of it.
struct Looked {
    OpenedView opened;
    RepoContents contents;
};

// Of a tier by its name: as with --from, by the configuration's key.
Result<Looked> look(const Globals& globals, const std::string& name) {
    Globals place = globals;
    if (!name.empty()) place.from = name;
    Looked looked;
    WV_TRY(looked.opened, open_view(place, {.only_here = true}));
    std::unique_ptr<storage::ObjectStore> objects;
    if (!place.from.empty()) {
        storage::TierPlace where;
        if (place.from_is_name()) {
            WV_TRY(const TierConfig* tier, looked.opened.config.tier(place.from));
            where = tier->place();
        } else {
            WV_TRY(where, storage::parse_tier_url(place.from));
        }
        WV_TRY(objects, storage::open_tier_objects(posix_file_system(), where));
    } else {
        objects =
            storage::make_directory_store(posix_file_system(), looked.opened.config.repo.root);
    }
    auto listed = objects->list("");
    if (!listed) return fail(as_repository_error(std::move(listed).error()));
    auto at = storage::read_tier_name(*objects);
    if (!at) return fail(as_repository_error(std::move(at).error()));
    WV_TRY(looked.contents, contents_of(std::move(*listed), *looked.opened.view, at->value_or("")));
    return looked;
}

int stat(const Globals& globals, const std::string& name) {
    auto looked = look(globals, name);
    if (!looked) return report(globals, looked.error());
    const OpenedView& opened = looked->opened;
    auto totals = opened.view->totals(opened.cluster.name);
    if (!totals) return report(globals, totals.error());
    if (globals.output != Output::text) {
        nlohmann::ordered_json body{{"server", opened.cluster.name},
                                    {"url", opened.store->url()},
                                    {"wal_bytes", totals->wal_plain_bytes},
                                    {"wal_stored_bytes", totals->wal_stored_bytes},
                                    {"base_bytes", totals->base_plain_bytes},
                                    {"base_stored_bytes", totals->base_stored_bytes},
                                    {"journal_stored_bytes", totals->journal_stored_bytes},
                                    {"chunk_count", totals->chunk_count},
                                    {"pack_count", totals->pack_count}};
        body.update(contents_json(looked->contents));
        print_answer(globals, body);
        return kExitDone;
    }
    const std::string journals =
        totals->journal_stored_bytes == 0
            ? ""
            : "journals      " + format_size(totals->journal_stored_bytes) + " stored\n";
    std::printf(
        "WAL           %s stored for %s\nbase backups  %s stored for %s in %s chunks\n%spacks      "
        "  "
        " %s\n%s",
        format_size(totals->wal_stored_bytes).c_str(), format_size(totals->wal_plain_bytes).c_str(),
        format_size(totals->base_stored_bytes).c_str(),
        format_size(totals->base_plain_bytes).c_str(), format_count(totals->chunk_count).c_str(),
        journals.c_str(), format_count(totals->pack_count).c_str(),
        contents_text(looked->contents).c_str());
    return kExitDone;
}

int ls(const Globals& globals, const std::string& name) {
    auto looked = look(globals, name);
    if (!looked) return report(globals, looked.error());
    SortedJson packs = SortedJson::array();
    SortedJson objects = SortedJson::array();
    Table table({"PATH", "KIND", "CLASS", "STORED", "PLAIN", "WAL FROM", "TO"});
    for (const RepoObject& object : looked->contents.objects) {
        const bool wal = object.pack && object.pack->kind() == pb::PACK_KIND_WAL;
        const std::string from = wal ? to_string(Lsn{object.pack->start_lsn()}) : "";
        const std::string to = wal ? to_string(Lsn{object.pack->end_lsn()}) : "";
        const std::uint64_t plain = object.pack ? object.pack->plain_bytes() : 0;
        table.add_row({printable(object.name), object.kind, printable(object.storage_class),
                       format_size(object.size_bytes), plain > 0 ? format_size(plain) : "", from,
                       to});
        objects.push_back({{"path", object.name},
                           {"kind", object.kind},
                           {"class", object.storage_class},
                           {"stored_bytes", object.size_bytes}});
        if (!object.pack || object.kind == "condemned") continue;
        packs.push_back({{"path", object.name},
                         {"stored_bytes", object.pack->stored_bytes()},
                         {"bytes", plain},
                         {"start_lsn", from},
                         {"end_lsn", to}});
    }
    if (globals.output == Output::text)
        std::fputs(table.text().c_str(), stdout);
    else
        print_answer(globals, SortedJson{{"packs", packs}, {"objects", objects}});
    return kExitDone;
}

// The key of --key-file, or the one that the configuration names, where there is one.
Result<storage::MasterKey> key_for_copy(const Globals& globals, const RepoArguments& arguments) {
    Config config;
    config.key_path = globals.key_path;
    if (globals.key_path.empty()) {
        WV_TRY(config, load_config(globals));
        const std::string own = "file://" + config.repo.root;
        // What is copied onto the agent's own repository would be written beside its writer.
        if ((arguments.to + "/").starts_with(own + "/") ||
            (own + "/").starts_with(arguments.to + "/"))
            return fail(Errc::refused,
                        arguments.to + " is the repository of the agent, " + own +
                            ", or lies around or inside of it",
                        "name an empty place of its own");
    }
    return read_master_key(config);
}

struct Copied {
    std::string from, to;  // without options
    RepoCopied what;
};

Result<Copied> carry_out_copy(const Globals& globals, const RepoArguments& arguments) {
    const std::string& from = arguments.name;
    const std::string& to = arguments.to;
    if ((from + "/").starts_with(to + "/") || (to + "/").starts_with(from + "/"))
        return fail(Errc::refused, "the two places are the same, or one inside of the other",
                    "name an empty place of its own");
    WV_TRY(storage::MasterKey master, key_for_copy(globals, arguments));
    // They are not repeated: somebody may have put keys into them.
    auto from_place = storage::parse_tier_url(from);
    if (!from_place) return fail_while("the first place", from_place.error());
    auto to_place = storage::parse_tier_url(to);
    if (!to_place) return fail_while("the second place", to_place.error());
    auto source = storage::open_tier_store(posix_file_system(), *from_place);
    if (!source) return fail_while(from_place->url, source.error());
    auto target = storage::open_tier_objects(posix_file_system(), *to_place);
    if (!target) return fail_while(to_place->url, target.error());
    Copied copied{(*source)->url(), (*target)->url(), {}};
    if (globals.dry_run) {
        WV_TRY([[maybe_unused]] bool begun, storage::is_tier(**source, **target, master));
        return copied;
    }
    ProgressLine progress = ProgressLine::for_globals(globals, "repo copy", system_clock());
    WV_TRY(copied.what, copy_repository(**source, **target, storage::objects_at_once(*to_place),
                                        master, progress));
    return copied;
}

int copy(const Globals& globals, const RepoArguments& arguments) {
    auto copied = carry_out_copy(globals, arguments);
    if (!copied) return report(globals, as_repository_error(copied.error()));
    if (globals.output != Output::text) {
        nlohmann::ordered_json body{
            {"from", copied->from}, {"to", copied->to}, {"dry_run", globals.dry_run}};
        if (!globals.dry_run) {
            body["repository"] = copied->what.repository;
            body["ledger_sequence"] = copied->what.ledger_sequence;
            body["put_bytes"] = copied->what.put_bytes;
        }
        print_answer(globals, body);
    } else if (globals.dry_run) {
        std::printf("Would copy %s to %s.\n", printable(copied->from).c_str(),
                    printable(copied->to).c_str());
    } else if (!globals.quiet) {
        std::printf("Copied %s to %s: %s, up to entry %s of the ledger.\n",
                    printable(copied->from).c_str(), printable(copied->to).c_str(),
                    format_size(copied->what.put_bytes).c_str(),
                    format_count(copied->what.ledger_sequence).c_str());
    }
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
    if (made && !globals.dry_run)
        made = storage::initialize_tier(*repository, *objects, master, name);
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
        print_answer(globals, SortedJson{{"repo", (*tier)->name},
                                         {"url", (*tier)->url},
                                         {"dry_run", globals.dry_run}});
    else if (!globals.quiet)
        std::printf(globals.dry_run
                        ? "Would make %s a copy of this repository.\n"
                        : "%s is a copy of this repository now. An agent that runs with it in its "
                          "configuration brings what is stored.\n",
                    printable((*tier)->url).c_str());
    return kExitDone;
}

// The ledger's word that a tier is no more; what lies there is left as it is.
Result<> remove_tier(const Globals& globals, const Config& config, const std::string& name) {
    if (config.tier(name))
        return fail(Errc::refused, "[repo." + printable(name) + "] is still in the configuration",
                    "take the table out first");
    WV_TRY(storage::MasterKey master, read_master_key(config));
    storage::RepositoryOptions options;
    options.version = kVersion;
    options.host = "repo remove";
    options.wal_level = config.repo.wal_level;
    auto repository = storage::Repository::open(posix_file_system(), config.repo.root, master,
                                                system_clock(), options);
    if (!repository) return fail(as_repository_error(std::move(repository).error()));
    WV_TRY(auto tiers, (*repository)->tiers());
    if (std::ranges::find(tiers, name) == tiers.end()) {
        std::string known;
        for (const std::string& tier : tiers)
            known += (known.empty() ? "" : ", ") + tier;
        return fail(Errc::invalid_argument, "the ledger knows no copy \"" + printable(name) + "\"",
                    known.empty() ? "it knows of none" : "it knows of " + known);
    }
    if (!globals.yes) WV_CHECK(require_held_without(config, name, system_clock().now()));
    if (globals.dry_run) return {};
    WV_CHECK((*repository)->remove_place(name));
    return (*repository)->sync();
}

int remove(const Globals& globals, const Config& config, const std::string& name) {
    auto removed = remove_tier(globals, config, name);
    if (!removed) return report(globals, removed.error());
    if (globals.output != Output::text)
        print_answer(globals, SortedJson{{"repo", name}, {"dry_run", globals.dry_run}});
    else if (!globals.quiet)
        std::printf(globals.dry_run ? "Would enter that the copy %s does not count any more.\n"
                                    : "The copy %s does not count any more. What lies there was "
                                      "left as it is.\n",
                    printable(name).c_str());
    return kExitDone;
}

}  // namespace

int verb_repo(const Globals& globals, const RepoArguments& arguments) {
    if (arguments.action == "stat") return stat(globals, arguments.name);
    if (arguments.action == "ls") return ls(globals, arguments.name);
    if (arguments.action == "copy") return copy(globals, arguments);
    auto config = load_config(globals);
    if (!config) return report(globals, config.error(), kExitUsage);
    if (arguments.action == "rebuild-index") return rebuild_index(globals, *config);
    if (arguments.action == "add") return add(globals, *config, arguments.name);
    if (arguments.action == "remove") return remove(globals, *config, arguments.name);
    return report(globals,
                  Error{Errc::invalid_argument, "repo has no action \"" + arguments.action + "\"",
                        "rebuild-index, stat, ls, copy, add or remove"},
                  kExitUsage);
}

}  // namespace walvault::agent
