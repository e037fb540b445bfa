#include "storage/private_file.h"

#include <unistd.h>

#include <array>
#include <cstdio>

namespace walvault::storage {

Result<> check_private_file(const FileInfo& info, const std::string& what, const std::string& path,
                            std::uint64_t bytes_max) {
    if (info.is_symlink)
        return fail(Errc::wrong_key, what + " is a symbolic link", "Name the file it points to.");
    if (info.is_directory || info.size_bytes == 0 || info.size_bytes > bytes_max)
        return fail(Errc::wrong_key,
                    what + " is not a file of 1 to " + std::to_string(bytes_max) + " bytes");
    unsigned user = ::geteuid();
    // Root may read all anyway, and looks after what a service's user owns.
    if (info.owner != user && info.owner != 0 && user != 0)
        return fail(Errc::wrong_key,
                    what + " belongs to user " + std::to_string(info.owner) + ", neither to user " +
                        std::to_string(user) + " nor to root",
                    "`chown " + std::to_string(user) + " " + path + "`");
    bool credential = info.owner == 0 && info.mode == 0440;
    if ((info.mode & 0177) == 0 || credential) return {};
    std::array<char, 16> octal{};
    std::snprintf(octal.data(), octal.size(), "%04o", info.mode);
    return fail(
        Errc::wrong_key,
        what + " has mode " + octal.data() +
            ", others than its owner may use it or it is executable; 0600 or 0400 is wanted",
        "`chmod 600 " + path + "`");
}

}  // namespace walvault::storage
