#include "agent/open_view.h"

#include <cstdlib>

#include "agent/render.h"

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

}  // namespace

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

Result<OpenedView> open_view(const Globals& globals, bool with_condemned) {
    OpenedView opened;
    WV_TRY(opened.config, load_config(globals));
    WV_TRY(const ServerConfig* server, opened.config.server(globals.server));
    opened.server = *server;
    opened.zone = display_zone(server->time_zone);
    WV_TRY(auto master, read_master_key(opened.config));
    opened.master = std::make_unique<storage::MasterKey>(std::move(master));
    opened.store = storage::make_directory_store(posix_file_system(), opened.config.repo.root);
    storage::RepositoryView::Options options = view_options(opened.config.repo.root);
    options.with_condemned = with_condemned;
    auto view = storage::RepositoryView::open(*opened.store, *opened.master, options);
    if (!view) return fail(as_repository_error(std::move(view).error()));
    opened.view = std::move(*view);
    WV_TRY(opened.cluster, find_cluster(*opened.view, opened.server.name));
    return opened;
}

ResolveContext resolve_context(const OpenedView& opened, WallTime now,
                               const HistoryArguments& history) {
    ResolveContext context{opened.cluster.name, now, opened.zone};
    if (history.timeline > 0) context.timeline = history.timeline;
    context.history = history.history;
    return context;
}

}  // namespace walvault::agent
