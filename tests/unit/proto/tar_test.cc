#include "proto/tar.h"

#include <doctest/doctest.h>

#include <cstdio>

#include "proto/archive_path.h"

using namespace walvault;

namespace {

void set_checksum(ByteBuffer& header) {
    std::fill_n(header.begin() + 148, 8, std::byte{' '});
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i)
        sum += std::to_integer<unsigned>(header[i]);
    char text[9];
    std::snprintf(text, sizeof text, "%06o", sum);
    std::copy_n(as_bytes(text).begin(), 6, header.begin() + 148);
    header[154] = std::byte{0};
}

ByteBuffer header_of(std::string_view name, char type, std::uint64_t size,
                     std::string_view link = {}) {
    ByteBuffer header(512);
    auto put = [&](std::size_t at, std::string_view text) {
        std::copy_n(as_bytes(text).begin(), text.size(),
                    header.begin() + static_cast<std::ptrdiff_t>(at));
    };
    char number[16];
    put(0, name);
    put(100, "0000640");
    std::snprintf(number, sizeof number, "%011llo", static_cast<unsigned long long>(size));
    put(124, number);
    put(136, "14000000000");
    header[156] = static_cast<std::byte>(type);
    put(157, link);
    put(257, "ustar");
    put(263, "00");
    set_checksum(header);
    return header;
}

ByteBuffer member(std::string_view name, std::string_view content) {
    ByteBuffer bytes = header_of(name, '0', content.size());
    append(bytes, as_bytes(content));
    bytes.resize((bytes.size() + 511) / 512 * 512);
    return bytes;
}

struct TarRead {
    std::vector<TarMember> members;
    std::string content;
    std::size_t ended = 0;
    bool ok = true;
};

TarRead read(ByteSpan bytes, std::size_t piece_bytes = 4096) {
    TarRead out;
    TarReader reader({.on_member = [&](const TarMember& found) -> Result<> {
                          out.members.push_back(found);
                          return {};
                      },
                      .on_data = [&](ByteSpan data) -> Result<> {
                          out.content += as_text(data);
                          return {};
                      },
                      .on_member_end = [&]() -> Result<> {
                          ++out.ended;
                          return {};
                      }});
    while (!bytes.empty() && out.ok) {
        const ByteSpan piece = bytes.first(std::min(piece_bytes, bytes.size()));
        bytes = bytes.subspan(piece.size());
        out.ok = reader.feed(piece).has_value();
    }
    out.ok = out.ok && reader.finish().has_value();
    return out;
}

ByteBuffer archive() {
    ByteBuffer bytes = member("backup_label", "START");
    append(bytes, header_of("./pg_wal/archive_status/", '5', 0));
    append(bytes, header_of("pg_tblspc/16384/", '2', 0, "/srv/ts"));
    append(bytes, member("empty", ""));
    append(bytes, member("full", std::string(512, 'f')));
    return bytes;
}

}  // namespace

TEST_CASE("files, directories and links are read, however the bytes are cut") {
    for (std::size_t piece : {1, 7, 511, 512, 513, 100'000}) {
        TarRead out = read(archive(), piece);
        CHECK(out.ok);
        REQUIRE(out.members.size() == 5);
        CHECK(out.members[0].path == "backup_label");
        CHECK(out.members[0].size_bytes == 5);
        CHECK(out.members[0].mode == 0640);
        CHECK(out.members[0].modified_at_seconds == 1'610'612'736);
        CHECK(out.members[1].path == "pg_wal/archive_status");
        CHECK(out.members[1].type == TarMember::Type::directory);
        CHECK(out.members[2].path == "pg_tblspc/16384");
        CHECK(out.members[2].link_target == "/srv/ts");
        CHECK(out.content == "START" + std::string(512, 'f'));
        CHECK(out.ended == 3);
    }
}

TEST_CASE("an archive may end with zero blocks or without them, and nothing follows") {
    ByteBuffer bytes = archive();
    bytes.resize(bytes.size() + 1024);
    CHECK(read(bytes).ok);
    append(bytes, member("late", "x"));
    CHECK_FALSE(read(bytes).ok);
}

TEST_CASE("an archive that stops inside a member or a header is incomplete") {
    ByteBuffer bytes = member("file", "12345");
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
        INFO(cut);
        CHECK_FALSE(read(ByteSpan(bytes).first(cut)).ok);
    }
}

TEST_CASE("paths that lead elsewhere and members of other types are refused") {
    for (const char* name :
         {"../x", "/etc/passwd", "a/../b", "a//b", "", ".", "./", "a/.", "././a", "a/"}) {
        INFO(name);
        CHECK_FALSE(read(member(name, "x")).ok);
    }
    for (char type : {'1', '3', '4', '6', '7', 'x', 'g', 'L', 'S'}) {
        INFO(type);
        CHECK_FALSE(read(header_of("x", type, 0)).ok);
    }
    CHECK_FALSE(read(header_of("x", '2', 0)).ok);
    CHECK_FALSE(read(header_of("x", '5', 10)).ok);
    CHECK_FALSE(is_safe_relative_path(std::string(1001, 'a')));
    CHECK_FALSE(is_safe_relative_path(std::string_view("a\0b", 3)));
    CHECK(is_safe_relative_path("base/1/..a"));
}

TEST_CASE("a flipped bit in a header is found by its sum") {
    for (std::size_t at = 0; at < 512; ++at) {
        ByteBuffer bytes = member("file", "");
        bytes[at] ^= std::byte{1};
        const bool in_checksum_field = at >= 148 && at < 156;
        if (!in_checksum_field) CHECK_FALSE(read(bytes).ok);
    }
}

TEST_CASE("sizes of 8 GiB and more are base-256, negative ones are refused") {
    ByteBuffer header = header_of("large", '0', 0);
    std::fill_n(header.begin() + 124, 12, std::byte{0});
    header[124] = std::byte{0x80};
    header[131] = std::byte{0x02};  // 2 << 32
    set_checksum(header);
    TarRead out = read(header);
    REQUIRE(out.members.size() == 1);
    CHECK(out.members[0].size_bytes == 8ULL << 30);
    CHECK_FALSE(out.ok);
    std::fill_n(header.begin() + 124, 12, std::byte{0xFF});
    set_checksum(header);
    CHECK(read(header).members.empty());
    header[124] = std::byte{0x80};
    set_checksum(header);
    CHECK(read(header).members.empty());
}
