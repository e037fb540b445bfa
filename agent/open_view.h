// OpenView: from the configuration to a readable repository: key, store, view, and the cluster
// meant.
#pragma once

#include <memory>

#include "agent/config.h"
#include "agent/stop_point.h"
#include "agent/verbs.h"
#include "storage/repository_view.h"

namespace walvault::agent {

// What every reading verb works with. The view needs the store, so the order of members matters.
struct OpenedView {
    bool is_tier = false;  // of --from: nothing is written there, and no agent is asked
    Config config;
    ServerConfig server;
    std::unique_ptr<storage::MasterKey> master;
    std::unique_ptr<storage::ObjectStore> store;
    std::unique_ptr<storage::RepositoryView> view;
    storage::ClusterRecord cluster;
    std::string zone;  // for times that are read and shown
};

// The key the configuration names. Errors: wrong_key.
Result<storage::MasterKey> read_master_key(const Config& config);

// The same error for the exit code of a repository that cannot be reached or is none; others
// unchanged.
Error as_repository_error(Error error);

struct ViewWanted {
    bool with_condemned = false;  // also what retention has condemned, while it is there
    bool only_here = false;  // what the repository's directory has, nothing that only tiers have
};
// Reads the configuration, the key and the repository, its tiers for what only they have; with
// --from, key and one tier. Errors: as those; not_found if the repository has nothing of the server
// that is meant.
Result<OpenedView> open_view(const Globals& globals, const ViewWanted& wanted = {});

// The repository's directory, and its tiers for packs that are not there any more. Asks nothing of
// them yet. Errors: as open_tier_store().
Result<std::unique_ptr<storage::ObjectStore>> open_layered_store(const Config& config);

// The same, into an empty `opened`. After an error it holds what was opened by then: where an
// object is archived that had to be read, the store at least.
Result<> open_view_into(const Globals& globals, OpenedView& opened, const ViewWanted& wanted = {});

// How views of a repository at `root` are opened: with its index where it can be used.
storage::RepositoryView::Options view_options(const std::string& root);

// As one word of a shell's command; control characters as printable() shows them.
std::string shell_word(const std::string& text);

// " --from URL --key-file FILE" or " --from NAME" where these were given: for commands that are
// shown.
std::string source_options(const Globals& globals);

// Where a target is looked for, and how its times are shown.
ResolveContext resolve_context(const OpenedView& opened, WallTime now,
                               const HistoryArguments& history);

}  // namespace walvault::agent
