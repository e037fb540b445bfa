#include "storage/repository_files.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

#include "base/crc32c.h"
#include "storage/sealer.h"

namespace walvault::storage {
namespace {

constexpr std::string_view kHeaderMagic = "WVREPO1\n";
constexpr std::uint64_t kKeyringBytesMax = 64 << 20;
constexpr std::string_view kKeyringDirectory = "keyring/";
constexpr std::size_t kGenerationDigits = 10;

bool is_keyring_name(std::string_view name) {
    return name.size() == kKeyringDirectory.size() + kGenerationDigits &&
           name.starts_with(kKeyringDirectory) &&
           name.find_first_not_of("0123456789", kKeyringDirectory.size()) == std::string_view::npos;
}

}  // namespace

ByteBuffer encode_repository_header(const pb::RepositoryHeader& header) {
    std::string content = header.SerializeAsString();
    ByteBuffer bytes;
    append(bytes, as_bytes(kHeaderMagic));
    append_le<std::uint32_t>(bytes, static_cast<std::uint32_t>(content.size()));
    append(bytes, as_bytes(content));
    append_le<std::uint32_t>(bytes, crc32c(bytes));
    return bytes;
}

Result<pb::RepositoryHeader> decode_repository_header(ByteSpan bytes) {
    ByteReader reader(bytes);
    if (as_text(reader.bytes(kHeaderMagic.size())) != kHeaderMagic)
        return fail(Errc::corrupt, "the repository header does not begin as one");
    ByteSpan content = reader.bytes(reader.le<std::uint32_t>());
    std::uint32_t crc = reader.le<std::uint32_t>();
    if (!reader.ok() || reader.remaining() != 0 || crc != crc32c(bytes.first(bytes.size() - 4)))
        return fail(Errc::corrupt, "the repository header is damaged",
                    "copy the file `repository` from another copy of this repository");
    pb::RepositoryHeader header;
    if (!header.ParseFromArray(content.data(), static_cast<int>(content.size())) ||
        header.repository_id().size() != 16)
        return fail(Errc::corrupt, "the repository header cannot be read");
    if (header.format_version() != kFormatVersion)
        return fail(Errc::unsupported,
                    "the repository has format version " + std::to_string(header.format_version()) +
                        "; this walvault knows version " + std::to_string(kFormatVersion));
    return header;
}

std::string keyring_name(std::uint64_t generation) {
    char name[40];
    std::snprintf(name, sizeof name, "keyring/%010llu",
                  static_cast<unsigned long long>(generation));
    return name;
}

std::string writer_name(std::uint64_t generation) {
    char name[40];
    std::snprintf(name, sizeof name, "writer/%016llu", static_cast<unsigned long long>(generation));
    return name;
}

bool is_reserved_name(std::string_view name) {
    constexpr std::array<std::string_view, 9> kReserved{kHeaderName, kLockName, kIndexName,
                                                        "keyring",   "ledger",  "lease",
                                                        "tier",      "writer",  "control.sock"};
    return std::ranges::find(kReserved, name) != kReserved.end();
}

Result<OpenedRepository> open_repository_files(ObjectStore& store, const MasterKey& master) {
    auto bytes = store.get(kHeaderName, 0, 4096);
    if (!bytes && bytes.error().code == Errc::not_found)
        return fail(Errc::not_found, store.url() + " is not a walvault repository",
                    "`walvault init` makes one; check [repo.primary] url");
    if (!bytes) return fail(bytes.error());
    WV_TRY(pb::RepositoryHeader header, decode_repository_header(*bytes));
    if (id_from<16>(header.master_key_id()) != master.id())
        return fail(Errc::wrong_key,
                    "the key (id " + to_hex(master.id()) +
                        ") is not the one of this repository (id " +
                        to_hex(as_bytes(header.master_key_id())) + ")",
                    "give the key file that `walvault key show-id` says has the repository's id");
    WV_TRY(auto rings, store.list(std::string(kKeyringDirectory)));
    std::erase_if(rings, [](const ObjectInfo& ring) { return !is_keyring_name(ring.name); });
    if (rings.empty())
        return fail(Errc::corrupt, "the repository has no keyring: nothing in it can be read",
                    "copy the folder `keyring` from another copy of this repository");
    OpenedRepository opened;
    opened.id = id_from<16>(header.repository_id());
    WV_TRY(ByteBuffer ring, store.get(rings.back().name, 0, kKeyringBytesMax));
    auto keyring = Keyring::decode(ring, opened.id, master);
    if (!keyring) return fail_while(rings.back().name, keyring.error());
    opened.keyring = std::move(*keyring);
    return opened;
}

Id16 cluster_id_of(const Keyring& keyring, const std::string& cluster) {
    const DataKey* key = keyring.current(pb::KEY_PURPOSE_CONTENT_ID);
    WV_ASSERT(key != nullptr);
    Id32 hash = content_id(*key, as_bytes("cluster " + cluster));
    Id16 id;
    std::copy_n(hash.begin(), id.size(), id.begin());
    return id;
}

std::string tail_name(const std::string& cluster, const Id16& history, TimelineId timeline,
                      Lsn start, std::uint64_t generation, std::uint64_t serial) {
    char place[80];
    std::snprintf(place, sizeof place, "-%08X-%016llX-%llu.%llu.tail", timeline,
                  static_cast<unsigned long long>(start.value),
                  static_cast<unsigned long long>(generation),
                  static_cast<unsigned long long>(serial));
    return cluster + "/wal/" + to_hex(history) + place;
}

std::string backup_id_at(WallTime at) {
    std::time_t seconds = static_cast<std::time_t>(at.time_since_epoch().count() / 1'000'000);
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts);
    return text;
}

}  // namespace walvault::storage
