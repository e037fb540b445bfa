#include "proto/base_backup_message.h"

#include <algorithm>

namespace walvault {
namespace {

// Takes text up to its terminating zero off the front of `rest`.
bool take_c_string(ByteSpan& rest, std::string& text) {
    auto zero = std::find(rest.begin(), rest.end(), std::byte{0});
    if (zero == rest.end()) return false;
    const auto length = static_cast<std::size_t>(zero - rest.begin());
    text = std::string(as_text(rest.first(length)));
    rest = rest.subspan(length + 1);
    return true;
}

// A tablespace's archive is named by its OID: 1 to 10 digits.
bool is_archive_name(std::string_view name) {
    if (name == "base.tar") return true;
    if (!name.ends_with(".tar")) return false;
    name.remove_suffix(4);
    return !name.empty() && name.size() <= 10 && name[0] != '0' &&
           std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<BaseBackupMessage> decode_archive_start(ByteSpan body) {
    ArchiveStart start;
    if (!take_c_string(body, start.archive_name) || !take_c_string(body, start.tablespace_path) ||
        !body.empty())
        return fail(Errc::corrupt, "the message that starts an archive is not two strings");
    if (!is_archive_name(start.archive_name))
        return fail(Errc::corrupt, "the server names an archive \"" +
                                       start.archive_name.substr(0, 64) +
                                       "\", which is neither base.tar nor a tablespace's");
    if ((start.archive_name == "base.tar") != start.tablespace_path.empty())
        return fail(Errc::corrupt, "archive " + start.archive_name + " comes with the location \"" +
                                       start.tablespace_path.substr(0, 64) + "\"");
    return start;
}

}  // namespace

Result<BaseBackupMessage> decode_base_backup_message(ByteSpan message) {
    if (message.empty()) return fail(Errc::corrupt, "the server sent an empty base backup message");
    const char type = static_cast<char>(message[0]);
    ByteSpan body = message.subspan(1);
    switch (type) {
        case 'n':
            return decode_archive_start(body);
        case 'm':
            if (!body.empty())
                return fail(Errc::corrupt, "the message that starts the manifest has " +
                                               std::to_string(body.size()) + " bytes too many");
            return ManifestStart{};
        case 'd':
            return ArchiveData{body};
        case 'p':
            if (body.size() != 8)
                return fail(Errc::corrupt, "a progress message has " + std::to_string(body.size()) +
                                               " bytes instead of 8");
            return BackupProgress{load_be<std::uint64_t>(body.data())};
        default:
            return fail(
                Errc::corrupt,
                "the server sent a base backup message of unknown type " +
                    std::to_string(static_cast<unsigned>(static_cast<unsigned char>(type))));
    }
}

}  // namespace walvault
