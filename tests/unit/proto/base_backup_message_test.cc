#include "proto/base_backup_message.h"

#include <doctest/doctest.h>

using namespace walvault;
using namespace std::string_view_literals;

TEST_CASE("the four messages of a base backup are decoded") {
    auto base = decode_base_backup_message(as_bytes("nbase.tar\0\0"sv));
    REQUIRE(base);
    CHECK(std::get<ArchiveStart>(*base).archive_name == "base.tar");
    auto tablespace = decode_base_backup_message(as_bytes("n16384.tar\0/srv/ts\0"sv));
    REQUIRE(tablespace);
    CHECK(std::get<ArchiveStart>(*tablespace).tablespace_path == "/srv/ts");
    auto manifest = decode_base_backup_message(as_bytes("m"));
    REQUIRE(manifest);
    CHECK(std::holds_alternative<ManifestStart>(*manifest));
    auto data = decode_base_backup_message(as_bytes("dabc"));
    REQUIRE(data);
    CHECK(as_text(std::get<ArchiveData>(*data).bytes) == "abc");
    auto progress = decode_base_backup_message(as_bytes("p\0\0\0\0\0\0\1\0"sv));
    REQUIRE(progress);
    CHECK(std::get<BackupProgress>(*progress).done_bytes == 256);
}

TEST_CASE("an archive cannot be named to lead elsewhere") {
    for (std::string_view message :
         {""sv, "x"sv, "n"sv, "nbase.tar"sv, "nbase.tar\0"sv, "nbase.tar\0\0x"sv,
          "nbase.tar\0/srv\0"sv, "n../base.tar\0\0"sv, "n/etc/passwd\0/x\0"sv, "n16384.tar\0\0"sv,
          "n0.tar\0/x\0"sv, "n.tar\0/x\0"sv, "n1a.tar\0/x\0"sv, "n12345678901.tar\0/x\0"sv, "mx"sv,
          "p1234567"sv, "p123456789"sv}) {
        INFO(message);
        auto decoded = decode_base_backup_message(as_bytes(message));
        REQUIRE_FALSE(decoded);
        CHECK(decoded.error().code == Errc::corrupt);
    }
}
