#include "agent/open_repository.h"

#include "agent/open_view.h"
#include "agent/version.h"

namespace walvault::agent {

Result<std::unique_ptr<storage::Repository>> open_repository(const Config& config,
                                                             const std::string& host) {
    WV_TRY(storage::MasterKey master, read_master_key(config));
    storage::RepositoryOptions options;
    options.host = host;
    options.version = kVersion;
    options.wal_level = config.repo.wal_level;
    WV_TRY(options.packs_store, open_layered_store(config));
    auto repository = storage::Repository::open(posix_file_system(), config.repo.root, master,
                                                system_clock(), options);
    if (!repository) return fail(as_repository_error(std::move(repository).error()));
    return std::move(*repository);
}

}  // namespace walvault::agent
