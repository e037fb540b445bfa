// The plain files of a repository: header, keyring generations, names of what it holds.
#pragma once

#include <algorithm>
#include <string>

#include "proto/lsn.h"
#include "storage/keyring.h"
#include "storage/ledger.h"
#include "storage/object_store.h"

namespace walvault::storage {

inline constexpr const char* kHeaderName = "repository";
inline constexpr const char* kLockName = "lock";
inline constexpr const char* kIndexName = "index";

ByteBuffer encode_repository_header(const pb::RepositoryHeader& header);
// Errors: corrupt, unsupported.
Result<pb::RepositoryHeader> decode_repository_header(ByteSpan bytes);

struct OpenedRepository {
    Id16 id{};
    Keyring keyring;
};
// Header and newest keyring. Errors: not_found (no repository there), wrong_key, corrupt,
// unsupported.
Result<OpenedRepository> open_repository_files(ObjectStore& store, const MasterKey& master);

// Names in the repository's directory that no cluster can have.
bool is_reserved_name(std::string_view name);

std::string keyring_name(std::uint64_t generation);
// "writer/0000000000000007": the claim of a writer. Made once, never removed.
std::string writer_name(std::uint64_t generation);
// Keyed hash of a cluster's name; binds files to it.
Id16 cluster_id_of(const Keyring& keyring, const std::string& cluster);
// "main/wal/<history>-<timeline>-<start>-<generation>.<serial>.tail"; a writer never repeats a
// serial
std::string tail_name(const std::string& cluster, const Id16& history, TimelineId timeline,
                      Lsn start, std::uint64_t generation, std::uint64_t serial);

// "20261123T180300Z": the id of a base backup that begins then.
std::string backup_id_at(WallTime at);

template <std::size_t N>
std::array<std::byte, N> id_from(const std::string& bytes) {
    std::array<std::byte, N> id{};
    std::copy_n(as_bytes(bytes).begin(), std::min(bytes.size(), N), id.begin());
    return id;
}
inline std::string text_of(ByteSpan bytes) { return std::string(as_text(bytes)); }

}  // namespace walvault::storage
