#include "agent/operating_user.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "agent/config.h"
#include "base/invariant.h"

namespace walvault::agent {
namespace {

std::optional<FileOwner> owner_of(const passwd* entry) {
    if (entry == nullptr) return {};
    return FileOwner{entry->pw_uid, entry->pw_gid, entry->pw_name};
}

bool may_read(const FileOwner& owner, const std::string& path) {
    EffectiveUser as_owner(owner);
    return ::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) == 0;
}

}  // namespace

std::optional<FileOwner> service_owner() {
    if (::geteuid() != 0) return {};
    return owner_of(::getpwnam(kServiceUser));
}

Result<FileOwner> user_numbered(uid_t user) {
    auto owner = owner_of(::getpwuid(user));
    if (owner) return *owner;
    return fail(Errc::not_found, "there is no user " + std::to_string(user) + " on this system",
                "PostgreSQL does not run as root; create that user or run walvault as another one");
}

std::optional<FileOwner> repository_owner(const std::string& root) {
    struct stat status {};
    if (::geteuid() != 0 || ::stat(root.c_str(), &status) != 0 || status.st_uid == 0) return {};
    return owner_of(::getpwuid(status.st_uid));
}

Result<> become_repository_owner(const std::string& config_path,
                                 const std::map<std::string, std::string>& environment) {
    if (::geteuid() != 0) return {};
    auto config = load_config(posix_file_system(), config_path, environment);
    if (!config) return {};  // the verb says what is wrong with it
    const auto owner = repository_owner(config->repo.root);
    if (!owner || !may_read(*owner, config_path) || !may_read(*owner, config->key_path)) return {};
    const passwd* entry = ::getpwuid(owner->user);
    const std::string home = entry == nullptr ? "/" : entry->pw_dir;
    if (::initgroups(owner->name.c_str(), owner->group) != 0 || ::setgid(owner->group) != 0 ||
        ::setuid(owner->user) != 0)
        return fail(Errc::io,
                    "become " + owner->name + ", the repository's owner: " + std::strerror(errno));
    // libpq looks for its files there; those of root cannot be read any more.
    ::setenv("HOME", home.c_str(), 1);
    return {};
}

std::string asking_user() {
    const char* behind_sudo = std::getenv("SUDO_USER");
    const passwd* self = ::getpwuid(::getuid());
    std::string user = behind_sudo != nullptr ? behind_sudo
                       : self != nullptr      ? self->pw_name
                                              : std::to_string(::getuid());
    user = user.substr(0, 64);
    // The ledger keeps text that is UTF-8, and the environment is anybody's.
    std::ranges::replace_if(
        user, [](char c) { return c < ' ' || c > '~'; }, '?');
    return user;
}

EffectiveUser::EffectiveUser(const std::optional<FileOwner>& owner)
    : changed_(owner && ::geteuid() == 0) {
    if (!changed_) return;
    // The group first: afterwards there is no right to change it.
    if (::setegid(owner->group) == 0 && ::seteuid(owner->user) == 0) return;
    changed_ = false;
    WV_ASSERT(::setegid(::getgid()) == 0);
}

EffectiveUser::~EffectiveUser() {
    if (!changed_) return;
    WV_ASSERT(::seteuid(0) == 0);
    WV_ASSERT(::setegid(::getgid()) == 0);
}

}  // namespace walvault::agent
