// TarReader: the ustar stream that BASE_BACKUP sends, as events; hostile names and types are refused.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace walvault {

struct TarMember {
    enum class Type { file, directory, symlink } type = Type::file;
    std::string path;  // relative, no "..", no empty component, no NUL, at most 1,000 bytes
    std::string link_target;
    std::uint64_t size_bytes = 0;  // files up to 2^62 (base-256 sizes are understood)
    unsigned mode = 0600;
    std::int64_t modified_at_seconds = 0;
};

class TarReader {
public:
    struct Callbacks {
        std::function<Result<>(const TarMember&)> on_member;
        std::function<Result<>(ByteSpan)> on_data;  // pieces of the current file, in order
        std::function<Result<>()> on_member_end;    // for files only
    };
    explicit TarReader(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

    // Pieces may be cut anywhere. Errors: corrupt (header checksum, number, type, path), or what a
    // callback returned; the reader must not be fed after an error.
    Result<> feed(ByteSpan bytes);
    // The archive is over. Errors: corrupt if a member or a header is incomplete. PostgreSQL 15 ends
    // archives without the two zero blocks in some cases; both forms are accepted.
    Result<> finish();

private:
    Result<> start_member(ByteSpan header);
    Callbacks callbacks_;
    ByteBuffer header_;
    std::uint64_t data_left_bytes_ = 0;
    std::uint64_t padding_left_bytes_ = 0;
    bool in_file_ = false;
    bool at_end_ = false;
};

}  // namespace walvault
