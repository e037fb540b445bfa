#include "agent/open_view.h"

#include <cstdlib>

#include <filesystem>

#include "agent/render.h"
#include "storage/layered_store.h"
#include "storage/tier_store.h"

namespace walvault::agent {
namespace {

std::string scratch_directory() {
    const char* configured = std::getenv("TMPDIR");
    return configured != nullptr && configured[0] == '/' ? configured : "/tmp";
}

Result<storage::ClusterRecord> find_cluster(storage::RepositoryView& view,
                                            const std::string& name) {
    WV_TRY(auto clusters, view.clusters());
    std::string known;
    for (const auto& cluster : clusters) {
        if (cluster.name == name) return cluster;
        known += (known.empty() ? "" : ", ") + cluster.name;
    }
    return fail(Errc::not_found, "the repository holds nothing of server " + name,
                known.empty() ? "start the agent: walvault run"
                              : "it holds " + known + "; choose with --server");
}

Result<storage::ClusterRecord> only_cluster(storage::RepositoryView& view) {
    WV_TRY(auto clusters, view.clusters());
    if (clusters.size() == 1) return clusters.front();
    std::string known;
    for (const auto& cluster : clusters)
        known += (known.empty() ? "" : ", ") + cluster.name;
    if (known.empty())
        return fail(Errc::not_found, "the repository holds nothing of any server yet");
    return fail(Errc::invalid_argument, "the repository holds several servers: " + known,
                "say which: --server NAME");
}

// Only a repository that is written to in place has writers.
Result<bool> is_copy(storage::ObjectStore& store) {
    WV_TRY(auto writers, store.list("writer/"));
    return writers.empty();
}

Result<storage::TierPlace> configure_tier(const Globals& globals, OpenedView& opened) {
    opened.zone = display_zone("");
    if (!globals.from_is_name()) {
        WV_CHECK(configure_log(globals, opened.config));
        opened.config.key_path = globals.key_path;
        auto place = storage::parse_tier_url(globals.from);
        // It is not repeated: somebody may have put keys into it.
        if (!place) return fail_while("--from", place.error());
        return place;
    }
    WV_TRY(opened.config, load_config(globals));
    WV_TRY(const TierConfig* tier, opened.config.tier(globals.from));
    if (opened.config.servers.size() == 1)
        opened.zone = display_zone(opened.config.servers.front().time_zone);
    if (!globals.key_path.empty()) opened.config.key_path = globals.key_path;
    return tier->place();
}

Result<> open_tier_view(const Globals& globals, const ViewWanted& wanted, OpenedView& opened) {
    opened.is_tier = true;
    WV_TRY(const storage::TierPlace place, configure_tier(globals, opened));
    WV_TRY(opened.store, storage::open_tier_store(posix_file_system(), place));
    opened.config.repo.root = storage::directory_of_url(place.url).value_or("");
    WV_TRY(auto master, read_master_key(opened.config));
    opened.master = std::make_unique<storage::MasterKey>(std::move(master));
    auto copy = is_copy(*opened.store);
    if (!copy) return fail(as_repository_error(std::move(copy).error()));
    storage::RepositoryView::Options options{.index_directory = "",
                                             .scratch_directory = scratch_directory(),
                                             .is_tier = *copy,
                                             .with_condemned = wanted.with_condemned};
    auto name = storage::read_tier_name(*opened.store);
    if (!name) return fail(as_repository_error(std::move(name).error()));
    options.place = name->value_or("");
    auto view = storage::RepositoryView::open(*opened.store, *opened.master, options);
    if (!view) {
        const bool is_none = view.error().code == Errc::not_found;
        Error error = as_repository_error(std::move(view).error());
        if (is_none)
            error.hint =
                place.bucket
                    ? "is this the bucket and the prefix that [repo.NAME] url named?"
                    : "is it mounted, and is this the directory that [repo.NAME] url named?";
        return fail(std::move(error));
    }
    opened.view = std::move(*view);
    if (globals.server.empty()) {
        WV_TRY(opened.cluster, only_cluster(*opened.view));
    } else {
        WV_TRY(opened.cluster, find_cluster(*opened.view, globals.server));
    }
    opened.server.name = opened.cluster.name;
    return {};
}

}  // namespace

std::string shell_word(const std::string& text) {
    std::string word = printable(text);
    // A shell would take the '&' between options for its own.
    if (word.find_first_of("?&;()<>|$`\"'\\ *[#~") == std::string::npos && !word.empty())
        return word;
    for (std::size_t at = 0; (at = word.find('\'', at)) != std::string::npos; at += 4)
        word.replace(at, 1, "'\\''");
    return "'" + word + "'";
}

std::string source_options(const Globals& globals) {
    if (globals.from.empty()) return "";
    std::string options = " --from " + shell_word(globals.from);
    if (!globals.key_path.empty()) options += " --key-file " + printable(globals.key_path);
    return options;
}

Result<std::unique_ptr<storage::ObjectStore>> open_layered_store(const Config& config) {
    std::vector<std::unique_ptr<storage::ObjectStore>> tiers;
    for (const TierConfig& tier : config.tiers) {
        WV_TRY(auto store, storage::open_tier_store(posix_file_system(), tier.place()));
        tiers.push_back(std::move(store));
    }
    return storage::make_layered_store(
        storage::make_directory_store(posix_file_system(), config.repo.root), std::move(tiers));
}

Result<storage::MasterKey> read_master_key(const Config& config) {
    return storage::MasterKey::read_file(posix_file_system(), config.key_path);
}

storage::RepositoryView::Options view_options(const std::string& root) {
    return {.index_directory = root + "/index", .scratch_directory = scratch_directory()};
}

Error as_repository_error(Error error) {
    if (error.code == Errc::not_found || error.code == Errc::unavailable) error.code = Errc::io;
    return error;
}

Result<OpenedView> open_view(const Globals& globals, const ViewWanted& wanted) {
    OpenedView opened;
    WV_CHECK(open_view_into(globals, opened, wanted));
    return opened;
}

Result<> open_view_into(const Globals& globals, OpenedView& opened, const ViewWanted& wanted) {
    if (!globals.from.empty()) return open_tier_view(globals, wanted, opened);
    WV_TRY(opened.config, load_config(globals));
    WV_TRY(const ServerConfig* server, opened.config.server(globals.server));
    opened.server = *server;
    opened.zone = display_zone(server->time_zone);
    WV_TRY(auto master, read_master_key(opened.config));
    opened.master = std::make_unique<storage::MasterKey>(std::move(master));
    storage::RepositoryView::Options options = view_options(opened.config.repo.root);
    options.with_condemned = wanted.with_condemned;
    if (wanted.only_here) {
        options.place = "";
        opened.store = storage::make_directory_store(posix_file_system(), opened.config.repo.root);
    } else {
        WV_TRY(opened.store, open_layered_store(opened.config));
    }
    auto view = storage::RepositoryView::open(*opened.store, *opened.master, options);
    if (!view) return fail(as_repository_error(std::move(view).error()));
    opened.view = std::move(*view);
    WV_TRY(opened.cluster, find_cluster(*opened.view, opened.server.name));
    return {};
}

ResolveContext resolve_context(const OpenedView& opened, WallTime now,
                               const HistoryArguments& history) {
    ResolveContext context{opened.cluster.name, now, opened.zone};
    if (history.timeline > 0) context.timeline = history.timeline;
    context.history = history.history;
    return context;
}

}  // namespace walvault::agent
