// RepoContents: every object of a repository or of a copy, and what the ledger knows of it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "storage/object_store.h"
#include "storage/repository_view.h"

namespace walvault::agent {

struct RepoObject {
    std::string name;
    // "wal", "base", "manifest", "tail"; "condemned" for a pack that retention lets go; "ledger",
    // "keyring", "header", "writer", "lease", "index", "lock"; "unnamed": the ledger does not name
    // it.
    std::string kind;
    std::string storage_class;  // empty: the store has none
    std::uint64_t size_bytes = 0;
    std::optional<pb::PackInfo> pack = {};  // of packs and whole tails
};

struct RepoContents {
    struct Part {
        std::uint64_t count = 0;
        std::uint64_t bytes = 0;
    };
    std::vector<RepoObject> objects;  // by name
    std::map<std::string, Part> kinds;
    std::map<std::string, Part> classes;  // of those that have one
    std::vector<std::string> missing;     // packs that the ledger names and that are not there
    std::string oldest_base, newest_base;
    std::uint64_t total_bytes = 0;
};

// `objects`: what the store lists, as it lies there. The view is of the same store, and of this
// place. Errors: as the view's.
Result<RepoContents> contents_of(std::vector<storage::ObjectInfo> objects,
                                 storage::RepositoryView& view, const std::string& place);

std::string contents_text(const RepoContents& contents);
nlohmann::ordered_json contents_json(const RepoContents& contents);

}  // namespace walvault::agent
