// Which operating system user acts: one user owns key, repository and configuration, and root steps
// down to it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "agent/restore_tree.h"

namespace walvault::agent {

// The operating system's user of the shipped layout: PostgreSQL's own, so that peer authentication
// lets the agent in and a restored server can run wal-get.
inline constexpr const char* kServiceUser = "postgres";

// Who shall own what root makes: the user postgres. Nothing when this process is not root, or when
// there is no such user.
std::optional<FileOwner> service_owner();

// The user with that number. Errors: not_found.
Result<FileOwner> user_numbered(uid_t user);

// The owner of the repository in `root`, when this process is root and the owner is another user.
std::optional<FileOwner> repository_owner(const std::string& root);

// Root becomes the owner of the repository for the rest of this process, so that what a verb writes
// there can be read by the agent, and PostgreSQL's peer authentication sees that user. Does nothing
// for others, without a configuration or repository, and where the owner may not read the
// configuration and the key (a repository brought from another machine). Errors: io.
Result<> become_repository_owner(const std::string& config_path,
                                 const std::map<std::string, std::string>& environment);

// Who asks, for the ledger: the user behind sudo where there is one, else this process' own; 64
// bytes at most.
std::string asking_user();

// The effective user of this process while it lives: `owner` if this process is root.
class EffectiveUser {
public:
    explicit EffectiveUser(const std::optional<FileOwner>& owner);
    ~EffectiveUser();
    EffectiveUser(const EffectiveUser&) = delete;
    EffectiveUser& operator=(const EffectiveUser&) = delete;

private:
    bool changed_;
};

}  // namespace walvault::agent
