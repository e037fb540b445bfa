#include "proto/archive_path.h"

namespace walvault {

bool is_safe_relative_path(std::string_view path) {
    constexpr std::size_t kPathBytesMax = 1000;
    if (path.empty() || path.size() > kPathBytesMax) return false;
    if (path.find('\0') != std::string_view::npos) return false;
    while (true) {
        const std::size_t slash = path.find('/');
        const std::string_view component = path.substr(0, slash);
        if (component.empty() || component == "." || component == "..") return false;
        if (slash == std::string_view::npos) return true;
        path.remove_prefix(slash + 1);
    }
}

}  // namespace walvault
