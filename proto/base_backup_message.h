// Messages inside the COPY OUT stream of BASE_BACKUP, PostgreSQL 15 and later (manual, 55.4);
// before, a copy held one archive and nothing else.
#pragma once

#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/result.h"

namespace walvault {

struct ArchiveStart {
    std::string archive_name;     // "base.tar", "16384.tar"
    std::string tablespace_path;  // empty for base
};
struct ManifestStart {};
struct ArchiveData {
    ByteSpan bytes;  // of the current archive or manifest; a view into the message
};
struct BackupProgress {
    std::uint64_t done_bytes = 0;
};
using BaseBackupMessage = std::variant<ArchiveStart, ManifestStart, ArchiveData, BackupProgress>;

// Errors: corrupt. Names are checked: an archive is "base.tar" or digits + ".tar", nothing else.
Result<BaseBackupMessage> decode_base_backup_message(ByteSpan message);

}  // namespace walvault
