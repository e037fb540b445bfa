#include "agent/restore_directory.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace walvault::agent {
namespace {

namespace fs = std::filesystem;

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line.substr(0, 20);
}

// Empty unless a live process has written its number into postmaster.pid.
std::string running_postmaster(const std::string& path) {
    const std::string text = first_line(path + "/postmaster.pid");
    const long pid = std::strtol(text.c_str(), nullptr, 10);
    if (pid <= 0) return {};
    if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return {};
    return "pid " + std::to_string(pid);
}

Result<fs::path> absolute_path(const std::string& path) {
    if (path.empty())
        return fail(Errc::invalid_argument, "no directory is named", "say --pgdata DIR");
    std::error_code code;
    fs::path whole = fs::weakly_canonical(fs::absolute(path, code), code);
    if (code) return fail(Errc::io, "look at " + path + ": " + code.message());
    if (!whole.has_filename()) whole = whole.parent_path();
    if (!whole.has_relative_path())
        return fail(Errc::invalid_argument, path + " is the root directory");
    return whole;
}

Result<> measure(const fs::path& whole, DirectoryFacts& facts) {
    fs::path existing = whole;
    struct stat status {};
    while (::stat(existing.c_str(), &status) != 0 && existing.has_relative_path())
        existing = existing.parent_path();
    facts.device = status.st_dev;
    if (!S_ISDIR(status.st_mode))
        return fail(Errc::invalid_argument, existing.string() + " is not a directory");
    WV_TRY(facts.free_bytes, posix_file_system().available_bytes(existing.string()));
    return {};
}

bool is_ignored(const std::string& name) { return name == "lost+found"; }

Result<> remove_contents(const std::string& path) {
    WV_TRY(auto entries, posix_file_system().list(path));
    for (const auto& entry : entries) {
        if (entry.name == kIncompleteMarker || is_ignored(entry.name)) continue;
        std::error_code code;
        fs::remove_all(fs::path(path) / entry.name,
                       code);  // removes links, never what they point to
        if (code)
            return fail(Errc::io, "remove " + path + "/" + entry.name + ": " + code.message());
    }
    return {};
}

Result<> make_directory(const std::string& path, const std::optional<FileOwner>& owner) {
    const std::string parent = fs::path(path).parent_path().string();
    // Parents stay passable for the server's user; the directory itself is nobody else's.
    WV_CHECK(posix_file_system().make_directories(parent, 0755));
    WV_CHECK(posix_file_system().make_directories(path, 0700));
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
        return fail(Errc::io, "look at " + path + ": " + std::strerror(errno));
    const unsigned mode = status.st_mode & 07777;
    if (mode != 0700 && mode != 0750 && ::chmod(path.c_str(), 0700) != 0)
        return fail(Errc::io, "chmod " + path + ": " + std::strerror(errno));
    if (owner && ::chown(path.c_str(), owner->user, owner->group) != 0)
        return fail(Errc::io, "change the owner of " + path + ": " + std::strerror(errno));
    return posix_file_system().sync_directory(parent);
}

}  // namespace

Result<DirectoryFacts> inspect_directory(const std::string& path) {
    using State = DirectoryFacts::State;
    WV_TRY(fs::path whole, absolute_path(path));
    DirectoryFacts facts;
    facts.path = whole.string();
    WV_CHECK(measure(whole, facts));
    auto entries = posix_file_system().list(facts.path);
    if (!entries && entries.error().code == Errc::not_found) return facts;
    if (!entries) return fail(entries.error());
    facts.state = State::empty;
    bool ours = false;
    for (const auto& entry : *entries) {
        if (entry.name == kIncompleteMarker)
            ours = true;
        else if (!is_ignored(entry.name))
            facts.state = State::occupied;
    }
    if (ours) {
        // It is renamed into place last: with it, this is a cluster, and may have been used since
        // the restore was interrupted before it could take the marker away.
        auto control = posix_file_system().info(facts.path + "/global/pg_control");
        if (!control && control.error().code != Errc::not_found) return fail(control.error());
        facts.state = control ? State::occupied : State::incomplete;
    }
    if (std::string pid = running_postmaster(facts.path); !pid.empty()) {
        facts.state = State::running;
        facts.detail = pid;
    } else if (std::string version = first_line(facts.path + "/PG_VERSION"); !version.empty()) {
        facts.detail = "PG_VERSION " + version;
    }
    return facts;
}

Result<std::unique_ptr<FileLock>> claim_directory(const DirectoryFacts& facts,
                                                  const std::optional<FileOwner>& owner) {
    WV_CHECK(make_directory(facts.path, owner));
    // Looked at again: the plan may be minutes old.
    WV_TRY(DirectoryFacts now, inspect_directory(facts.path));
    const bool usable =
        now.state == DirectoryFacts::State::empty || now.state == DirectoryFacts::State::incomplete;
    if (!usable)
        return fail(Errc::refused,
                    facts.path + " is not empty any more" +
                        (now.detail.empty() ? "" : " (" + now.detail + ")"),
                    "name another directory");
    WV_TRY(auto lock, posix_file_system().lock(facts.path + "/" + kIncompleteMarker));
    WV_CHECK(remove_contents(facts.path));
    WV_CHECK(posix_file_system().sync_directory(facts.path));
    return lock;
}

}  // namespace walvault::agent
