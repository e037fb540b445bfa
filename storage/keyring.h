// Keyring: the master key, and the data keys it wraps.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/secret.h"
#include "proto/repository.pb.h"

namespace walvault::storage {

// 32 bytes. As a file: one line, "walvault-key-1 " + base64 + " " + 8 hex digits of a checksum, so
// that a typing error in a printed copy is seen.
class MasterKey {
public:
    static MasterKey generate();
    // The file must be regular, owned by this user or root, and readable by no one else (0600 or
    // 0400), not a symbolic link. 0440 is allowed where root owns it: what systemd's
    // LoadCredential= hands over looks so, because of its access control list. Errors: wrong_key,
    // with what to do.
    static Result<MasterKey> read_file(FileSystem& files, const std::string& path);
    static Result<MasterKey> parse(std::string_view line);
    // Creates `path` with mode 0600. Errors: refused if it exists.
    Result<> write_file(FileSystem& files, const std::string& path) const;

    // A keyed hash: the same for the same key, reveals nothing of it.
    Id16 id() const;
    ByteSpan view() const { return secret_.view(); }
    MasterKey clone() const { return MasterKey(secret_.clone()); }

private:
    explicit MasterKey(SecretBytes secret) : secret_(std::move(secret)) {}
    SecretBytes secret_;
};

struct DataKey {
    Id16 id{};
    pb::KeyPurpose purpose = pb::KEY_PURPOSE_UNSPECIFIED;
    std::string data_class;
    WallTime made_at;
    SecretBytes secret;
};

// All data keys of a repository, unwrapped. Immutable files: a change is a new generation.
class Keyring {
public:
    static Keyring create(const Id16& repository_id, const MasterKey& master);
    // Errors: wrong_key if another master key wrapped it, corrupt, unsupported.
    static Result<Keyring> decode(ByteSpan file, const Id16& repository_id,
                                  const MasterKey& master);
    // magic, length, KeyringContent, keyed BLAKE2b-256 over all three. `master` is the one it was
    // created or decoded with (asserted).
    ByteBuffer encode(const MasterKey& master) const;

    std::uint64_t generation() const { return generation_; }
    // A new random key; raises the generation.
    const DataKey& add(pb::KeyPurpose purpose, const std::string& data_class, WallTime now);
    // nullptr when there is no such key: never tries another.
    const DataKey* find(const Id16& key_id) const;
    // The newest key of that purpose and class, or nullptr.
    const DataKey* current(pb::KeyPurpose purpose, const std::string& data_class = {}) const;

private:
    Id16 repository_id_{};
    Id16 master_key_id_{};
    std::uint64_t generation_ = 0;
    std::vector<std::unique_ptr<DataKey>> keys_;  // pointers stay valid while it grows
};

}  // namespace walvault::storage
