#include "wal/received_files.h"

#include <doctest/doctest.h>

#include "base/crc32c.h"
#include "base/sha256.h"

namespace walvault::wal {
namespace {

constexpr std::uint32_t kCrc = 0xE3069283;  // of "123456789"

BackupManifestFile entry(std::string path, std::uint64_t size, const char* checksum = "839206e3") {
    BackupManifestFile file;
    file.path = std::move(path);
    file.size_bytes = size;
    file.checksum_algorithm = "CRC32C";
    file.checksum.resize(4);
    REQUIRE(from_hex(checksum, file.checksum));
    return file;
}

ReceivedFiles two_files() {
    ReceivedFiles files;
    REQUIRE(files.add("base/5/1259", 9, kCrc));
    REQUIRE(files.add("PG_VERSION", 9, crc32c(as_bytes("123456789"))));
    REQUIRE(files.seal());
    return files;
}

TEST_CASE("files that the manifest names with their size and checksum are all matched") {
    ReceivedFiles files = two_files();
    CHECK(files.match(entry("PG_VERSION", 9)));
    CHECK_FALSE(files.all_matched());
    CHECK(files.match(entry("base/5/1259", 9)));
    CHECK(files.all_matched());
}

TEST_CASE("a manifest that names another file, size or checksum is refused") {
    ReceivedFiles files = two_files();
    std::vector<BackupManifestFile> wrong{entry("PG_VERSIOM", 9), entry("PG_VERSION", 8),
                                          entry("PG_VERSION", 9, "839206e2"), entry("", 9)};
    wrong.push_back(entry("PG_VERSION", 9));
    wrong.back().checksum_algorithm = "SHA256";
    wrong.push_back(entry("PG_VERSION", 9));
    wrong.back().checksum.pop_back();
    for (const auto& file : wrong) {
        auto matched = files.match(file);
        REQUIRE_FALSE(matched);
        CHECK(matched.error().code == Errc::corrupt);
    }
    CHECK_FALSE(files.all_matched());
}

TEST_CASE("a manifest that names a file twice does not stand for one it leaves out") {
    ReceivedFiles files = two_files();
    CHECK(files.match(entry("PG_VERSION", 9)));
    CHECK_FALSE(files.match(entry("PG_VERSION", 9)));
    CHECK_FALSE(files.all_matched());
}

TEST_CASE("a path that came twice is refused") {
    ReceivedFiles files;
    REQUIRE(files.add("a", 1, kCrc));
    REQUIRE(files.add("b", 1, kCrc));
    REQUIRE(files.add("a", 2, kCrc));
    CHECK_FALSE(files.seal());
}

TEST_CASE("SHA-256 of pieces is that of the whole") {
    Sha256 hash;
    hash.update(as_bytes("a"));
    hash.update({});
    hash.update(as_bytes("bc"));
    CHECK(to_hex(hash.finish()) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace walvault::wal
