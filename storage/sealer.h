// FileCipher: compress-and-encrypt and its reverse, for the frames of one file.
#pragma once

#include <memory>
#include <span>

#include "base/secret.h"
#include "proto/frame_format.h"
#include "storage/keyring.h"

namespace walvault::storage {

inline constexpr int kNotCompressed = 0;  // in place of a zstd level

// The key of one file: BLAKE2b-256(data key, "walvault file 1" ‖ repository id ‖ file id).
// Immutable: seal and unseal may be called from any thread at once.
class FileCipher {
public:
    // Derives the key for a new file and fills in header.key_id and header.tag. A wrong key size
    // asserts.
    static FileCipher for_new_file(const DataKey& key, FileHeader& header);
    // Errors: corrupt if `key` is not the one the header names or the tag does not match.
    static Result<FileCipher> for_existing_file(const DataKey& key, const FileHeader& header);

    const FileHeader& header() const { return header_; }

    // Header and ciphertext, ready to append. `plain` has at most kFramePlainBytesMax bytes. Stored
    // uncompressed where zstd makes it no smaller. `level` is zstd's, 1..19 (negative ones are
    // allowed; 1 is tuned to PostgreSQL's pages), or kNotCompressed.
    // `cuts`: rising places inside of `plain` at which zstd begins a block, since what follows has
    // other statistics.
    ByteBuffer seal(const FramePlace& place, ByteSpan plain, int level,
                    std::span<const std::size_t> cuts = {}) const;
    // The same into a buffer the caller owns; resized. Not one that `plain` lies in.
    void seal_into(const FramePlace& place, ByteSpan plain, int level, ByteBuffer& out,
                   std::span<const std::size_t> cuts = {}) const;

    // The plain bytes of `frame` (header and ciphertext) if it is exactly the frame that belongs at
    // `place`. Authenticates before it decompresses, and decompresses into exactly the
    // authenticated length. Errors: corrupt.
    Result<ByteBuffer> unseal(const FramePlace& place, ByteSpan frame) const;
    // The same into a buffer the caller owns; resized.
    Result<> unseal_into(const FramePlace& place, ByteSpan frame, ByteBuffer& plain) const;

    // True if a frame header was made under this file's key (its commitment says so). The header's
    // other fields are authenticated only by unseal().
    bool vouches_for(const FrameHeader& frame) const;

    // Keyed BLAKE2b-256 under this file's key; names the footer in the ledger.
    Id32 keyed_hash(ByteSpan bytes) const;
    // Keyed BLAKE2b-128 of `purpose` under this file's key: a key for something else in this file.
    Id16 derived_key(std::string_view purpose) const;

private:
    FileCipher(SecretBytes key, const FileHeader& header)
        : key_(std::make_shared<SecretBytes>(std::move(key))), header_(header) {}
    Result<> open_frame(const FramePlace& place, ByteSpan frame, ByteBuffer& plain) const;

    std::shared_ptr<const SecretBytes> key_;
    FileHeader header_;
};

// BLAKE2b-256(content-id key, plain bytes): the name of a chunk. From any thread.
Id32 content_id(const DataKey& content_key, ByteSpan plain);
// Random bytes for ids.
Id16 random_id16();
// Unkeyed BLAKE2b-256, for the chain of the ledger.
Id32 plain_hash(ByteSpan first, ByteSpan second = {});

}  // namespace walvault::storage
