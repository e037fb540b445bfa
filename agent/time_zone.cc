#include "agent/time_zone.h"

#include <exception>
#include <filesystem>
#include <system_error>

namespace walvault::agent {
namespace {

// What /etc/localtime points to, or nothing.
std::string linked_zone() {
    const std::string directory = "zoneinfo/";
    std::error_code none;
    const std::string target = std::filesystem::read_symlink("/etc/localtime", none).string();
    const auto at = target.rfind(directory);
    return none || at == std::string::npos ? std::string() : target.substr(at + directory.size());
}

}  // namespace

const date::time_zone* find_zone(const std::string& name) {
    if (name.empty()) return nullptr;
    try {
        return date::locate_zone(name);
    } catch (const std::exception&) {
        return nullptr;
    }
}

bool is_utc(const std::string& name) { return name == "Etc/UTC" || name == "UTC"; }

std::string system_zone() {
    const std::string utc = "Etc/UTC";
    if (is_utc(linked_zone())) return utc;
    try {
        return date::current_zone()->name();
    } catch (const std::exception&) {
        return utc;
    }
}

}  // namespace walvault::agent
