#include "proto/backup_manifest.h"

#include <doctest/doctest.h>
#include <sodium.h>

using namespace walvault;

namespace {

class Sha256 {
public:
    Sha256() { crypto_hash_sha256_init(&state_); }
    Id32 operator()(ByteSpan piece, bool final) {
        crypto_hash_sha256_update(&state_, reinterpret_cast<const unsigned char*>(piece.data()),
                                  piece.size());
        Id32 digest{};
        if (final)
            crypto_hash_sha256_final(&state_, reinterpret_cast<unsigned char*>(digest.data()));
        return digest;
    }

private:
    crypto_hash_sha256_state state_;
};

std::string with_checksum(std::string lines) {
    const std::string hex = to_hex(Sha256()(as_bytes(lines), true));
    return lines + "\"Manifest-Checksum\": \"" + hex + "\"}\n";
}

const std::string kFiles =
    "{ \"Path\": \"backup_label\", \"Size\": 223, \"Last-Modified\": \"2026-11-23 18:47:14 GMT\", "
    "\"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"398fb58f\" },\n"
    "{ \"Encoded-Path\": \"62ff73\", \"Size\": 3, \"Last-Modified\": \"2026-11-23 18:43:32 GMT\" "
    "},\n"
    "{ \"Path\": \"quo\\\"te}]\", \"Size\": 0, \"Last-Modified\": \"2026-11-23 18:43:32 GMT\" }\n";

std::string manifest(const std::string& head = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n",
                     const std::string& files = kFiles) {
    return with_checksum(head + "\"Files\": [\n" + files +
                         "],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/C00028\", "
                         "\"End-LSN\": \"0/C00138\" }\n],\n");
}

struct ManifestRead {
    std::vector<BackupManifestFile> files;
    Result<BackupManifestSummary> summary = fail(Errc::corrupt, "not read");
};

ManifestRead read(const std::string& text, std::size_t piece_bytes = 1'000'000) {
    ManifestRead out;
    BackupManifestReader reader(
        [&](const BackupManifestFile& file) -> Result<> {
            out.files.push_back(file);
            return {};
        },
        Sha256());
    ByteSpan bytes = as_bytes(text);
    while (!bytes.empty()) {
        const ByteSpan piece = bytes.first(std::min(piece_bytes, bytes.size()));
        bytes = bytes.subspan(piece.size());
        if (auto fed = reader.feed(piece); !fed) {
            out.summary = fail(fed.error());
            return out;
        }
    }
    out.summary = reader.finish();
    return out;
}

}  // namespace

TEST_CASE("a manifest is read and its checksum verified, however it is cut") {
    const std::string text = manifest();
    for (std::size_t piece : {1, 2, 63, 64, 1'000'000}) {
        ManifestRead out = read(text, piece);
        REQUIRE_MESSAGE(out.summary.has_value(), out.summary.error().message);
        CHECK(out.summary->version == 1);
        CHECK(out.summary->file_count == 3);
        REQUIRE(out.summary->wal_ranges.size() == 1);
        CHECK(out.summary->wal_ranges[0].end_lsn == Lsn{0xC00138});
        REQUIRE(out.files.size() == 3);
        CHECK(out.files[0].path == "backup_label");
        CHECK(out.files[0].checksum_algorithm == "SHA256");
        CHECK(to_hex(out.files[0].checksum) == "398fb58f");
        CHECK(out.files[1].path == "b\xffs");
        CHECK(out.files[1].checksum_algorithm.empty());
        CHECK(out.files[2].path == "quo\"te}]");
    }
}

TEST_CASE("version 2 carries the system identifier, other versions are unsupported") {
    ManifestRead out =
        read(manifest("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n"
                      "\"System-Identifier\": 7711439459751663614,\n"));
    REQUIRE(out.summary);
    CHECK(out.summary->system_identifier == 7'711'439'459'751'663'614);
    CHECK_FALSE(read(manifest("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n")).summary);
    ManifestRead newer = read(manifest("{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n"));
    CHECK(newer.summary.error().code == Errc::unsupported);
    CHECK(newer.files.empty());
}

TEST_CASE("a changed or missing byte anywhere is found") {
    const std::string text = manifest();
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::string changed = text;
        changed[at] = static_cast<char>(changed[at] ^ 1);
        // The key's own name and the white space around it are on the one line that is not hashed.
        ManifestRead out = read(changed);
        INFO("byte ", at, ": ", text.substr(at, 20));
        CHECK_FALSE(out.summary);
        CHECK_FALSE(read(text.substr(0, at)).summary);
    }
}

TEST_CASE("hostile manifests are refused") {
    const std::string head = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n";
    for (const std::string& files :
         {std::string("{ \"Path\": \"../x\", \"Size\": 1 }\n"),
          std::string("{ \"Path\": \"/x\", \"Size\": 1 }\n"),
          std::string("{ \"Path\": \"x\", \"Size\": -1 }\n"), std::string("{ \"Path\": \"x\" }\n"),
          std::string("{ \"Size\": 1 }\n"), std::string("7\n"),
          std::string("{ \"Path\": \"x\", \"Size\": 1 },\n"),
          std::string("{ \"Encoded-Path\": \"2e2e\", \"Size\": 1 }\n"),
          "{ \"Path\": \"" + std::string(70'000, 'x') + "\", \"Size\": 1 }\n"}) {
        INFO(files.substr(0, 60));
        CHECK(read(manifest(head, files)).summary.error().code == Errc::corrupt);
    }
    CHECK_FALSE(read(std::string(100'000, '[')).summary);
    CHECK_FALSE(read(std::string(2'000'000, ' ')).summary);
    CHECK_FALSE(read("").summary);
    CHECK_FALSE(read("]").summary);
}
