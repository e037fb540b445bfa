#include "storage/private_directory.h"

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace walvault::storage {

Result<std::unique_ptr<PrivateDirectory>> PrivateDirectory::make(const std::string& parent,
                                                                 const std::string& name) {
    std::error_code code;
    std::filesystem::create_directories(parent, code);
    if (code) return fail(Errc::io, "make " + parent + ": " + code.message());
    // Made with mode 0700, under a name that nobody could have taken before.
    std::string path = parent + "/" + name + "-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr)
        return fail(Errc::io, "make a directory in " + parent + ": " +
                                  std::generic_category().message(errno));
    return std::make_unique<PrivateDirectory>(std::move(path));
}

PrivateDirectory::~PrivateDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace walvault::storage
