#include "proto/tar.h"

#include <algorithm>
#include <string_view>

#include "proto/archive_path.h"

namespace walvault {
namespace {

constexpr std::size_t kBlockBytes = 512;
constexpr std::uint64_t kSizeBytesMax = std::uint64_t{1} << 62;

constexpr std::size_t kChecksumOffset = 148;
constexpr std::size_t kChecksumBytes = 8;

std::string_view text_field(ByteSpan header, std::size_t offset, std::size_t bytes) {
    std::string_view field = as_text(header.subspan(offset, bytes));
    return field.substr(0, field.find('\0'));
}

// Octal digits, or, when the top bit is set, a big-endian number (what PostgreSQL writes from 8 GiB
// on).
bool number_field(ByteSpan header, std::size_t offset, std::size_t bytes, std::uint64_t& value) {
    ByteSpan field = header.subspan(offset, bytes);
    value = 0;
    const auto first = std::to_integer<unsigned>(field[0]);
    if (first & 0x80) {
        if (first & 0x7F) return false;  // negative, or beyond 88 bits
        for (std::byte byte : field.subspan(1)) {
            if (value >> 56) return false;
            value = value << 8 | std::to_integer<std::uint64_t>(byte);
        }
        return true;
    }
    std::string_view text = as_text(field);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    const std::size_t digits = std::min(text.find_first_not_of("01234567"), text.size());
    for (char digit : text.substr(0, digits))
        value = value << 3 | static_cast<unsigned>(digit - '0');
    const std::string_view rest = text.substr(digits);
    return digits > 0 &&
           rest.find_first_not_of(std::string_view(" \0", 2)) == std::string_view::npos;
}

std::uint64_t sum_of(ByteSpan header) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < header.size(); ++i) {
        const bool in_checksum = i >= kChecksumOffset && i < kChecksumOffset + kChecksumBytes;
        sum += in_checksum ? ' ' : std::to_integer<unsigned>(header[i]);
    }
    return sum;
}

bool all_zero(ByteSpan bytes) {
    return std::all_of(bytes.begin(), bytes.end(),
                       [](std::byte byte) { return byte == std::byte{0}; });
}

Result<TarMember> read_names(ByteSpan header, TarMember member) {
    std::string path(text_field(header, 345, 155));
    if (!path.empty()) path += '/';
    path += text_field(header, 0, 100);
    // PostgreSQL ends directories and links with a slash, and writes "./pg_wal/archive_status".
    if (path.starts_with("./")) path.erase(0, 2);
    if (member.type != TarMember::Type::file && path.ends_with('/')) path.pop_back();
    if (!is_safe_relative_path(path))
        return fail(Errc::corrupt, "an archive has a member with the path \"" +
                                       path.substr(0, 128) +
                                       "\", which is not a plain relative path");
    member.path = std::move(path);
    if (member.type == TarMember::Type::symlink) {
        member.link_target = text_field(header, 157, 100);
        if (member.link_target.empty())
            return fail(Errc::corrupt, "the link " + member.path + " in an archive leads nowhere");
    }
    return member;
}

Result<TarMember> read_header(ByteSpan header) {
    std::uint64_t checksum = 0;
    if (!number_field(header, kChecksumOffset, kChecksumBytes, checksum) ||
        checksum != sum_of(header))
        return fail(Errc::corrupt, "a member header of an archive has the sum " +
                                       std::to_string(sum_of(header)) + " instead of " +
                                       std::to_string(checksum));
    if (as_text(header.subspan(257, 5)) != "ustar")
        return fail(Errc::corrupt, "a member header of an archive is not ustar");
    TarMember member;
    std::uint64_t mode = 0;
    std::uint64_t modified_at = 0;
    if (!number_field(header, 100, 8, mode) || !number_field(header, 124, 12, member.size_bytes) ||
        !number_field(header, 136, 12, modified_at) || member.size_bytes > kSizeBytesMax ||
        modified_at > kSizeBytesMax)
        return fail(Errc::corrupt, "a number in a member header of an archive cannot be read");
    member.mode = static_cast<unsigned>(mode & 07777);
    member.modified_at_seconds = static_cast<std::int64_t>(modified_at);
    const char type = static_cast<char>(header[156]);
    switch (type) {
        case '0':
        case '\0':
            member.type = TarMember::Type::file;
            break;
        case '2':
            member.type = TarMember::Type::symlink;
            break;
        case '5':
            member.type = TarMember::Type::directory;
            break;
        default:
            return fail(Errc::corrupt,
                        "an archive has a member of type " +
                            std::to_string(std::to_integer<unsigned>(header[156])) +
                            "; only files, directories and symbolic links are taken");
    }
    if (member.type != TarMember::Type::file && member.size_bytes != 0)
        return fail(Errc::corrupt, "a directory or link in an archive has " +
                                       std::to_string(member.size_bytes) + " bytes of content");
    return read_names(header, std::move(member));
}

}  // namespace

Result<> TarReader::start_member(ByteSpan header) {
    if (all_zero(header)) {
        at_end_ = true;
        return {};
    }
    WV_TRY(TarMember member, read_header(header));
    WV_CHECK(callbacks_.on_member(member));
    if (member.type != TarMember::Type::file) return {};
    data_left_bytes_ = member.size_bytes;
    padding_left_bytes_ = (kBlockBytes - member.size_bytes % kBlockBytes) % kBlockBytes;
    in_file_ = data_left_bytes_ > 0;
    return in_file_ ? Result<>{} : callbacks_.on_member_end();
}

Result<> TarReader::feed(ByteSpan bytes) {
    while (!bytes.empty()) {
        if (at_end_) {
            if (!all_zero(bytes)) return fail(Errc::corrupt, "an archive goes on after its end");
            return {};
        }
        std::size_t used = 0;
        if (data_left_bytes_ > 0) {
            used = std::min<std::uint64_t>(bytes.size(), data_left_bytes_);
            WV_CHECK(callbacks_.on_data(bytes.first(used)));
            data_left_bytes_ -= used;
            if (data_left_bytes_ == 0) {
                in_file_ = false;
                WV_CHECK(callbacks_.on_member_end());
            }
        } else if (padding_left_bytes_ > 0) {
            used = std::min<std::uint64_t>(bytes.size(), padding_left_bytes_);
            padding_left_bytes_ -= used;
        } else if (header_.empty() && bytes.size() >= kBlockBytes) {
            used = kBlockBytes;
            WV_CHECK(start_member(bytes.first(kBlockBytes)));
        } else {
            used = std::min(bytes.size(), kBlockBytes - header_.size());
            append(header_, bytes.first(used));
            if (header_.size() == kBlockBytes) {
                ByteBuffer whole = std::move(header_);
                header_.clear();
                WV_CHECK(start_member(whole));
            }
        }
        bytes = bytes.subspan(used);
    }
    return {};
}

Result<> TarReader::finish() {
    if (in_file_)
        return fail(Errc::corrupt, "an archive ends " + std::to_string(data_left_bytes_) +
                                       " bytes before the end of its last member");
    if (padding_left_bytes_ > 0)
        return fail(Errc::corrupt, "an archive ends " + std::to_string(padding_left_bytes_) +
                                       " bytes before the end of the padding of its last member");
    if (!header_.empty())
        return fail(Errc::corrupt, "an archive ends after " + std::to_string(header_.size()) +
                                       " of the 512 bytes of a member header");
    return {};
}

}  // namespace walvault
