#include "storage/object_name.h"

#include <algorithm>

namespace walvault::storage {
namespace {

// Of files that are written in place under their own name and renamed when whole.
constexpr std::string_view kUnfinishedSuffix = ".tmp";
constexpr std::size_t kNameBytesMax = 1000;
constexpr std::size_t kComponentBytesMax = 200;

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

}  // namespace

bool is_plain_name_component(std::string_view component) {
    return !component.empty() && component.size() <= kComponentBytesMax &&
           component.front() != '.' && !component.ends_with(kUnfinishedSuffix) &&
           std::ranges::none_of(component, is_control);
}

bool is_object_name(std::string_view name) {
    if (name.size() > kNameBytesMax) return false;
    for (std::size_t start = 0;;) {
        std::size_t slash = name.find('/', start);
        if (!is_plain_name_component(name.substr(start, slash - start))) return false;
        if (slash == std::string_view::npos) return true;
        start = slash + 1;
    }
}

Result<> check_object_name(const std::string& name) {
    if (is_object_name(name)) return {};
    std::string shown = name.substr(0, 100);
    std::ranges::replace_if(shown, is_control, '?');
    return fail(Errc::invalid_argument, "\"" + shown + "\" is not a name an object can have");
}

Result<> check_object_prefix(const std::string& prefix) {
    std::size_t slash = prefix.find_last_of('/');
    if (slash == 0) return fail(Errc::invalid_argument, "a prefix is never absolute");
    if (slash == std::string::npos) return {};
    return check_object_name(prefix.substr(0, slash));
}

}  // namespace walvault::storage
